//! Listing the folder reads, hashes and verifies files, which takes as long as it takes: it is done on a thread that may block.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{TasksFolder, folder::FolderError, watcher::Watcher};
use crate::{blocking::off_the_runtime, parts::message_of};

impl TasksFolder {
    /// Lists the folder while it is watched, and says whether to do so again at once.
    pub(super) async fn watch_and_scan(mut self, mut watcher: Watcher, forced: bool) -> (Self, Watcher, bool) {
        off_the_runtime(move || {
            watcher.arm();
            // A folder that cannot be listed was announced; it is looked at again.
            let _ = self.scan(forced);
            // What changed in a folder between its listing and its first watch.
            let again = watcher.follow(&self.folders);
            (self, watcher, again)
        })
        .await
    }

    /// As [`TasksFolder::scan`], which reads, hashes and verifies files, on a thread that may block.
    pub(super) async fn scan_aside(mut self, forced: bool) -> (Self, Result<(), FolderError>) {
        off_the_runtime(move || {
            let listed = self.scan(forced);
            (self, listed)
        })
        .await
    }
}

/// Looks at a file. If that panics, the file is refused, and costs neither the others nor the host.
pub(super) fn contained<T>(look: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|panic| {
        Err(format!("cannot be looked at: internal error of this host: {}", message_of(&*panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_panics_whoever_looks_at_it_is_refused() {
        let refused = contained::<()>(|| panic!("what a file")).unwrap_err();
        assert!(refused.ends_with("internal error of this host: what a file"), "{refused}");
    }
}
