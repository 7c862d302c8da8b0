//! A private, sealed copy of a plugin file: the bytes that were checked are the bytes that get mapped.

use std::{fmt, os::fd::OwnedFd};

/// The SHA-256 of a plugin file: what tells one build from another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BuildId(pub [u8; 32]);

impl fmt::Display for BuildId {
    /// The first 12 hex digits, as in every log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

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
    /// Copies the first `loadable` bytes of a verified plugin file into sealed memory.
    pub fn seal(_file_name: &str, _build: BuildId, _loadable: &[u8]) -> std::io::Result<Image> {
        Err(std::io::Error::other("not written yet"))
    }
}
