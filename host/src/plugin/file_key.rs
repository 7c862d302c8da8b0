//! Detects changes of a file without reading it.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Longer than the timestamp granularity of any supported file system.
const TICK: Duration = Duration::from_millis(50);

/// A state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKey {
    device: u64,
    inode: u64,
    pub(crate) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileKey {
    /// The state described by this metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a change after this moment would be visible. Timestamps have a limited granularity: two writes within one tick
    /// may look the same.
    pub(crate) fn tells(&self) -> bool {
        since(self.modified.max(self.changed)) > TICK
    }

    /// The time since the last write; `None` if that is in the future by this host's clock.
    pub(crate) fn untouched_for(&self) -> Duration {
        since(self.modified)
    }

    /// Whether it is the same file with the same contents: a new name, another link or other permissions do not count.
    pub(crate) fn has_contents_of(&self, other: &Self) -> bool {
        self.is_file_of(other) && (self.size, self.modified) == (other.size, other.modified)
    }

    /// Whether it is the same file, regardless of its contents.
    pub(crate) fn is_file_of(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

fn since((seconds, nanoseconds): (i64, i64)) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let then =
        Duration::from_secs(seconds.max(0).unsigned_abs()) + Duration::from_nanos(nanoseconds.max(0).unsigned_abs());
    now.saturating_sub(then)
}
