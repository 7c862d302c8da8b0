//! A private, sealed copy of a plugin file: the checked bytes are the mapped bytes.

use std::{
    ffi::CString,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    },
    path::Path,
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::fs::{MemfdFlags, SealFlags};

use crate::build_id::BuildId;

/// The loadable part of a plugin file in sealed memory, with the identity of the whole file.
#[derive(Debug)]
pub struct Image {
    /// The file's name in the tasks folder, for messages.
    pub file_name: String,
    /// The plugin's name: the file's name without `lib` and `.so`.
    pub plugin: String,
    /// Identifies the build.
    pub build: BuildId,
    /// The sealed copy.
    pub(crate) fd: OwnedFd,
}

impl Image {
    /// Copies the first `loadable` bytes of a verified plugin file into sealed memory or, if the system refuses executable
    /// memory files, into an unlinked file.
    pub fn seal(file_name: &str, build: BuildId, loadable: &[u8]) -> io::Result<Image> {
        let plugin = Self::plugin_name(file_name);
        let fd = match memory_file(&plugin, loadable) {
            Ok(fd) => fd,
            // Hardened systems refuse memfd_create, or executable memory files, with various errors. A real shortage of
            // memory or descriptors recurs with the file.
            Err(refusal) => nameless_file(&std::env::temp_dir(), loadable).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("no private copy of it could be made, neither in memory ({refusal}) nor in {}: {error}; TMPDIR may name another folder", std::env::temp_dir().display()),
                )
            })?,
        };
        Ok(Image { file_name: file_name.to_owned(), plugin, build, fd })
    }

    /// Another copy of the same image: an image cannot be mapped twice into this process.
    pub(crate) fn copy(&self) -> io::Result<Image> {
        let file = File::from(self.fd.try_clone()?);
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Self::seal(&self.file_name, self.build, &bytes)
    }

    /// The plugin's name from a file's name: without `lib` and `.so`, with the folders below the tasks folder.
    pub fn plugin_name(file_name: &str) -> String {
        let stem = file_name.strip_suffix(".so").unwrap_or(file_name);
        let (folders, stem) = stem.rfind('/').map_or(("", stem), |slash| stem.split_at(slash + 1));
        match stem.strip_prefix("lib") {
            Some(rest) if !rest.is_empty() => format!("{folders}{rest}"),
            _ => format!("{folders}{stem}"),
        }
    }
}

fn memory_file(plugin: &str, content: &[u8]) -> io::Result<OwnedFd> {
    // The name appears in /proc/PID/maps. It must not contain a NUL, and has at most 249 bytes.
    let name: Vec<u8> =
        format!("taskbay-{plugin}").into_bytes().into_iter().filter(|byte| *byte != 0).take(200).collect();
    let name = CString::new(name)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(&name, flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 lack the flag, and their memory files are executable without it.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(&name, flags)?,
        other => other?,
    };
    let mut file = File::from(fd);
    file.write_all(content)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

/// A read-only descriptor of an unlinked file: no other process can open it, and nothing is left behind when this process
/// ends.
fn nameless_file(parent: &Path, content: &[u8]) -> io::Result<OwnedFd> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let folder = parent.join(format!("taskbay-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    DirBuilder::new().mode(0o700).create(&folder)?;
    let path = folder.join("image");
    // Nobody else can get at it, and the plugin's process may run as another user.
    let copy = || {
        OpenOptions::new().write(true).create_new(true).mode(0o555).open(&path)?.write_all(content)?;
        File::open(&path)
    };
    let file = copy();
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_dir(&folder);
    Ok(file?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_is_named_by_its_file() {
        assert_eq!(Image::plugin_name("libemail.so"), "email");
        assert_eq!(Image::plugin_name("email.so"), "email");
        assert_eq!(Image::plugin_name("lib.so"), "lib");
        assert_eq!(Image::plugin_name("libfoo.1.so"), "foo.1");
        assert_eq!(Image::plugin_name("mail/libsend.so"), "mail/send");
    }

    #[test]
    fn a_sealed_image_and_its_copy_hold_the_bytes_and_cannot_be_changed() {
        let image = Image::seal("libemail.so", BuildId([7; 32]), b"some bytes").unwrap().copy().unwrap();
        let file = File::from(image.fd);
        let mut bytes = [0; 10];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"some bytes");
        assert!(file.write_at(b"X", 0).is_err());
        assert!(file.set_len(3).is_err());
        assert!(file.set_len(30).is_err());
    }

    #[test]
    fn the_file_in_place_of_memory_is_read_only_and_leaves_no_name() {
        let parent = tempfile::tempdir().unwrap();
        let file = File::from(nameless_file(parent.path(), b"some bytes").unwrap());
        let mut bytes = [0; 10];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"some bytes");
        assert!(file.write_at(b"X", 0).is_err());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
