//! The tasks folder: what lies in it, and whether it may be trusted.
//!
//! Loading a plugin is running it, so a folder or file that others may write to would let them run code as this user.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{
    folder_error::{FileError, FolderError},
    listing::{Candidate, Kind, Listing},
    permissions::{is_read_only_file, unsafe_file, unsafe_folder},
};
use crate::plugin::FileKey;
use rustix::fs::{Access, Mode, OFlags, ResolveFlags};

/// Files are read into memory, and one with a hole may claim any size.
const LARGEST: u64 = 1 << 30;

/// The folder, opened.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The same without links.
    real: PathBuf,
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
        let real = path
            .canonicalize()
            .map_err(|error| FolderError::Unreadable { folder: folder.clone(), reason: error.to_string() })?;
        match unsafe_folder(&real) {
            Some(reason) if strict => Err(FolderError::Unsafe { folder, reason }),
            warning => Ok((Self { path: folder, real, fd, strict }, warning)),
        }
    }

    /// What is in it, and in the folders below it.
    pub(super) fn list(&self) -> Result<Listing, FolderError> {
        Listing::of(&self.path)
    }

    /// Where a file of it is.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file, which may be a link.
    pub(super) fn open_file(&self, name: &str, candidate: &Candidate) -> Result<OpenFile, FileError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(self.fd.as_fd(), name, flags, Mode::empty(), inside);
        let mut outside = false;
        let (fd, around) = match opened {
            Ok(fd) => {
                let around = self.unsafe_detour(name, &fd);
                (fd, around)
            }
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
        if candidate.kind == Kind::Executable
            && rustix::fs::access(format!("/proc/self/fd/{}", file.as_raw_fd()), Access::EXEC_OK).is_err()
        {
            return Err(FileError::Unrunnable);
        }
        let in_folder =
            || candidate.lax_folder.as_ref().map(|reason| format!("it is in a folder that is not: {reason}"));
        let warning = unsafe_file(&metadata, || is_read_only_file(&file)).or(around).or_else(in_folder);
        match warning {
            Some(reason) if self.strict => Err(FileError::Unsafe(reason)),
            warning => Ok(OpenFile { key: FileKey::of(&metadata), file, warning, outside }),
        }
    }

    /// Why others could replace a file that a link in the folder leads to by way of another folder below it, such as the
    /// hidden ones of a Kubernetes volume, which are not listed.
    fn unsafe_detour(&self, name: &str, fd: &OwnedFd) -> Option<String> {
        let expected = self.real.join(name);
        let actual = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        let (expected, actual) = (expected.parent()?, actual.parent()?);
        if expected == actual {
            return None;
        }
        unsafe_folder(actual).map(|reason| format!("it is a link into a folder that is not: {reason}"))
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

fn explain(error: rustix::io::Errno) -> String {
    match error {
        rustix::io::Errno::ACCESS => "permission denied; let this user read it (chmod a+r)".to_owned(),
        rustix::io::Errno::LOOP => "its links lead in a circle".to_owned(),
        other => other.to_string(),
    }
}
