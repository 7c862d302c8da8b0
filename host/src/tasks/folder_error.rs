//! Why the tasks folder or one of its files is of no use.

use std::path::PathBuf;

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
    #[error("the tasks folder {} is not safe: {reason}{HOW_TO_ALLOW}", .folder.display())]
    Unsafe { folder: PathBuf, reason: String },
}

impl FolderError {
    /// Whether there are no files any more, so that none can run from where it was.
    pub(super) fn takes_files_away(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::NotAFolder(_))
    }
}

/// What to do where the permissions cannot be changed, as on a volume that somebody else has made.
const HOW_TO_ALLOW: &str = ". Where that cannot be done, mount it read-only, or set strict_permissions = false under [tasks] (TASKBAY_STRICT_PERMISSIONS=false)";

/// Why a file in it is refused, without its name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum FileError {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error(
        "may not be executed by the user that taskbay runs as: chmod a+x it, or is its file system mounted noexec?"
    )]
    Unrunnable,
    #[error("is a link to {0}, which does not exist")]
    DeadLink(String),
    #[error("is not a file: put the compiled plugin itself here")]
    NotAFile,
    #[error("is not safe: {0}{HOW_TO_ALLOW}")]
    Unsafe(String),
    #[error("has {0} bytes, more than a plugin may have (1 GiB): put the compiled plugin itself here, or strip it")]
    TooLarge(u64),
    /// Not an error yet: somebody is still writing it.
    #[error("kept changing while it was read")]
    Changing,
}
