//! File leases: keep writers out of a file while an interpreter reads it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::libc_calls;

/// Until this is dropped, opening the file for writing blocks. (Renaming another file over it does not.)
#[derive(Debug)]
pub(super) struct Lease {
    file: File,
    held: bool,
}

/// The file is open for writing.
#[derive(Debug)]
pub(super) struct BeingWritten;

impl Lease {
    /// Opens the file, and keeps writers out if the system allows it: on most local file systems, for the file's owner and
    /// for root.
    pub(super) fn take(path: &Path) -> io::Result<Result<Lease, BeingWritten>> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(match libc_calls::lease(&file) {
            Ok(()) => Ok(Lease { file, held: true }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BeingWritten),
            Err(_) => Ok(Lease { file, held: false }),
        })
    }

    /// The leased file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Closing is not enough: a process that is just starting has inherited the descriptor.
        if self.held {
            libc_calls::end_lease(&self.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    #[test]
    fn a_writer_waits_for_the_end_of_a_lease_and_keeps_others_from_getting_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "old").expect("write");
        let lease = Lease::take(&path).expect("open").expect("nobody writes");
        assert!(lease.held, "the folder for temporary files lies on a local file system");
        let (opened, hear) = mpsc::channel();
        let writer = {
            let path = path.clone();
            thread::spawn(move || {
                let file = File::create(path).expect("open for writing");
                opened.send(file).expect("somebody hears");
            })
        };
        assert!(hear.recv_timeout(Duration::from_millis(100)).is_err(), "it waits");
        assert!(Lease::take(&path).expect("open").is_err(), "a writer waits");
        assert_eq!(std::fs::read(&path).expect("read"), b"old");
        drop(lease);
        let file = hear.recv_timeout(Duration::from_secs(30)).expect("it has the file");
        assert!(Lease::take(&path).expect("open").is_err(), "a writer has it open");
        drop(file);
        writer.join().expect("it ends");
        assert!(Lease::take(&path).expect("open").is_ok());
    }
}
