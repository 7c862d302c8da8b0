//! The tasks folder: what lies in it, and whether it may be trusted.
//!
//! Loading a plugin is running it, so a folder or file that others may write to would let them run code as this user.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use thiserror::Error;

/// Why a folder cannot serve as tasks folder. Each message says what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FolderError {
    #[error("the tasks folder {} does not exist: create it, or name another", .0.display())]
    Missing(PathBuf),
    #[error("the tasks folder {} is not a folder: name the folder that the compiled plugins are in", .0.display())]
    NotAFolder(PathBuf),
    #[error("the tasks folder {} cannot be read: {reason}", .folder.display())]
    Unreadable { folder: PathBuf, reason: String },
    #[error("the tasks folder {} is not safe: {reason}", .folder.display())]
    Unsafe { folder: PathBuf, reason: String },
}

/// Why a file in it is refused, without its name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum FileError {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("is a link to {0}, which does not exist")]
    DeadLink(String),
    #[error("is not a file: put the compiled plugin itself here")]
    NotAFile,
    #[error("is not safe: {0}")]
    Unsafe(String),
    #[error("has {0} bytes, more than a plugin may have (1 GiB): put the compiled plugin itself here, or strip it")]
    TooLarge(u64),
    /// Not an error yet: somebody is still writing it.
    #[error("kept changing while it was read")]
    Changing,
}

/// Files are read into memory, and one with a hole may claim any size.
const LARGEST: u64 = 1 << 30;

/// Longer than the tick of any file system's clock that plugins lie on.
const TICK: Duration = Duration::from_millis(50);

/// What tells, without reading it, that a file is the one that was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileKey {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The folder, opened.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
    /// Refuse what others may write to.
    strict: bool,
}

/// A file of the folder, opened.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    pub(super) key: FileKey,
    /// Why it would be refused, were the rules strict.
    pub(super) warning: Option<String>,
    /// It lies elsewhere, so that no event will tell of a change.
    pub(super) outside: bool,
}

impl Folder {
    /// Opens the folder; the second value is why it would be refused, were the rules strict.
    pub(super) fn open(path: &Path, strict: bool) -> Result<(Self, Option<String>), FolderError> {
        let folder = path.to_owned();
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(
            |error| match error {
                rustix::io::Errno::NOENT => FolderError::Missing(folder.clone()),
                rustix::io::Errno::NOTDIR => FolderError::NotAFolder(folder.clone()),
                other => FolderError::Unreadable { folder: folder.clone(), reason: other.to_string() },
            },
        )?;
        let warning = path
            .canonicalize()
            .map_err(|error| FolderError::Unreadable { folder: folder.clone(), reason: error.to_string() })
            .map(|real| unsafe_folder(&real))?;
        match warning {
            Some(reason) if strict => Err(FolderError::Unsafe { folder, reason }),
            warning => Ok((Self { path: folder, fd, strict }, warning)),
        }
    }

    /// The names of all files that could be plugins, sorted.
    pub(super) fn list(&self) -> Result<Vec<String>, FolderError> {
        let unreadable =
            |error: io::Error| FolderError::Unreadable { folder: self.path.clone(), reason: error.to_string() };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(unreadable)? {
            if let Ok(name) = entry.map_err(unreadable)?.file_name().into_string()
                && is_candidate(&name)
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Opens a file, which may be a link.
    pub(super) fn open_file(&self, name: &str) -> Result<OpenFile, FileError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(self.fd.as_fd(), name, flags, Mode::empty(), inside);
        let mut outside = false;
        let (fd, around) = match opened {
            Ok(fd) => (fd, None),
            // A link that leaves the folder, such as one into cargo's target folder; or a kernel that cannot tell.
            // (Sandboxes that do not know the call say that it is not permitted.)
            Err(rustix::io::Errno::XDEV | rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                outside = true;
                self.open_outside(name)?
            }
            Err(rustix::io::Errno::NOENT) => return Err(FileError::DeadLink(self.link_target(name))),
            // What a socket says.
            Err(rustix::io::Errno::NXIO) => return Err(FileError::NotAFile),
            Err(error) => return Err(FileError::Unreadable(explain(error))),
        };
        let file = File::from(fd);
        let metadata = file.metadata().map_err(|error| FileError::Unreadable(error.to_string()))?;
        if !metadata.is_file() {
            return Err(FileError::NotAFile);
        }
        if metadata.len() > LARGEST {
            return Err(FileError::TooLarge(metadata.len()));
        }
        let warning = unsafe_file(&metadata).or(around);
        match warning {
            Some(reason) if self.strict => Err(FileError::Unsafe(reason)),
            warning => Ok(OpenFile { key: FileKey::of(&metadata), file, warning, outside }),
        }
    }

    /// Follows a link out of the folder; where it leads must be as safe as the folder itself.
    fn open_outside(&self, name: &str) -> Result<(OwnedFd, Option<String>), FileError> {
        let target = self.path.join(name).canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => FileError::DeadLink(self.link_target(name)),
            _ => FileError::Unreadable(error.to_string()),
        })?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(&target, flags, Mode::empty())
            .map_err(|error| FileError::Unreadable(format!("{} ({})", explain(error), target.display())))?;
        let around = target.parent().and_then(unsafe_folder);
        Ok((fd, around.map(|reason| format!("it is a link into a folder that is not: {reason}"))))
    }

    fn link_target(&self, name: &str) -> String {
        fs::read_link(self.path.join(name))
            .map_or_else(|_| "somewhere".to_owned(), |target| target.display().to_string())
    }
}

impl OpenFile {
    /// Reads all of it, which fails if it changes meanwhile.
    pub(super) fn read(&mut self) -> Result<Vec<u8>, FileError> {
        let unreadable = |error: io::Error| FileError::Unreadable(error.to_string());
        let mut bytes = Vec::with_capacity(usize::try_from(self.key.size).unwrap_or(0));
        self.file.read_to_end(&mut bytes).map_err(unreadable)?;
        let after = FileKey::of(&self.file.metadata().map_err(unreadable)?);
        if after != self.key || bytes.len() as u64 != after.size {
            return Err(FileError::Changing);
        }
        Ok(bytes)
    }
}

impl FileKey {
    /// Whether a change after this moment would show. File systems count time in ticks, and what is written twice within
    /// one may look the same.
    pub(super) fn tells(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanoseconds) = self.modified.max(self.changed);
        let written = Duration::from_secs(seconds.max(0).unsigned_abs())
            + Duration::from_nanos(nanoseconds.max(0).unsigned_abs());
        now.saturating_sub(written) > TICK
    }

    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Whether a file of this name is meant to be loaded: hidden files are what copying tools write first.
pub(super) fn is_candidate(name: &str) -> bool {
    name.ends_with(".so") && !name.starts_with('.') && name.len() > ".so".len()
}

fn explain(error: rustix::io::Errno) -> String {
    match error {
        rustix::io::Errno::ACCESS => "permission denied; let this user read it (chmod a+r)".to_owned(),
        rustix::io::Errno::LOOP => "its links lead in a circle".to_owned(),
        other => other.to_string(),
    }
}

fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}

/// Why a file could be another user's doing.
fn unsafe_file(metadata: &fs::Metadata) -> Option<String> {
    if !is_trusted(metadata.uid()) {
        return Some(format!(
            "it belongs to user {}; chown it to the user that taskbay runs as, or to root",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return Some(format!("others may write to it (mode {:04o}); chmod go-w it", metadata.mode() & 0o7777));
    }
    if metadata.mode() & 0o6000 != 0 {
        return Some("it has the setuid or setgid bit, which a plugin has no use for; chmod ug-s it".to_owned());
    }
    None
}

/// Why others could put something into a folder, or put another folder in its place.
fn unsafe_folder(real: &Path) -> Option<String> {
    for (depth, folder) in real.ancestors().enumerate() {
        let Ok(metadata) = fs::metadata(folder) else { continue };
        let shown = folder.display();
        if !is_trusted(metadata.uid()) {
            return Some(format!(
                "{shown} belongs to user {}; chown it to the user that taskbay runs as, or to root",
                metadata.uid()
            ));
        }
        // In a sticky folder such as /tmp nobody can replace what belongs to another; but anybody can add to it.
        let sticky = depth > 0 && metadata.mode() & 0o1000 != 0;
        if metadata.mode() & 0o022 != 0 && !sticky {
            return Some(format!("others may write to {shown} (mode {:04o}); chmod go-w it", metadata.mode() & 0o7777));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::is_candidate;

    #[test]
    fn hidden_and_unfinished_files_are_no_candidates() {
        assert!(is_candidate("libx.so") && is_candidate("x.so"));
        for name in [".libx.so.new", ".libx.so", ".so", "..data", "libx.so.tmp", "libx.so.1", "README.md", "libx.dylib"]
        {
            assert!(!is_candidate(name), "{name}");
        }
    }
}
