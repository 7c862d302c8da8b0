//! Watches source files. The operating system says which file changed; what is no source file is not reported.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, recommended_watcher};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    build::{Installed, sources_of},
    crates::Workspace,
};

/// An editor saves in several steps: how long none may come before the build begins, and the longest that they may put it
/// off.
const SETTLE: Duration = Duration::from_millis(20);
const SETTLE_CAP: Duration = Duration::from_millis(200);

/// The source files of the crates.
#[derive(Debug)]
pub(super) struct Sources {
    watcher: RecommendedWatcher,
    watched: HashSet<(PathBuf, bool)>,
    known: Arc<Mutex<Known>>,
    changes: mpsc::UnboundedReceiver<PathBuf>,
}

/// What tells a source file.
#[derive(Debug, Default)]
struct Known {
    /// All in them are sources.
    folders: HashSet<PathBuf>,
    /// Went into a build, wherever they are.
    files: HashSet<PathBuf>,
    /// Nothing in them is a source.
    targets: HashSet<PathBuf>,
}

impl Sources {
    pub(super) fn new() -> Result<Self, notify::Error> {
        let known = Arc::new(Mutex::new(Known::default()));
        let (sender, changes) = mpsc::unbounded_channel();
        let filter = Arc::clone(&known);
        let watcher = recommended_watcher(move |event: notify::Result<Event>| {
            // An error is one of a single folder; its files are looked at again with the next build.
            let Ok(Event { kind, paths, .. }) = event else { return };
            if matches!(kind, EventKind::Access(_) | EventKind::Other) {
                return;
            }
            let known = filter.lock().unwrap_or_else(PoisonError::into_inner);
            for path in paths.into_iter().filter(|path| known.is_source(path)) {
                let _ = sender.send(path);
            }
        })?;
        Ok(Self { watcher, watched: HashSet::new(), known, changes })
    }

    /// Watches the crates of workspaces.
    pub(super) fn follow_crates(&mut self, workspaces: &[Workspace]) {
        for workspace in workspaces {
            self.known().targets.insert(workspace.target.clone());
            self.watch(&workspace.root, RecursiveMode::NonRecursive);
            for folder in &workspace.folders {
                let sources = folder.join("src");
                // The manifest and the build script; and not all below, where the target folder may be.
                self.watch(folder, RecursiveMode::NonRecursive);
                self.watch(&sources, RecursiveMode::Recursive);
                self.known().folders.insert(sources);
            }
        }
    }

    /// Watches what went into compiled plugins, such as a file that is included, or a crate outside of the workspace.
    pub(super) fn follow_files(&mut self, built: &[Installed]) {
        for file in built.iter().flat_map(|plugin| sources_of(&plugin.built)) {
            if !self.known().is_source(&file)
                && let Some(folder) = file.parent()
            {
                self.watch(folder, RecursiveMode::NonRecursive);
            }
            self.known().files.insert(file);
        }
    }

    /// Waits for a change, and for the end of those that come with it. Changes since the last call count.
    ///
    /// Cancel safe but for the changes that were seen already.
    pub(super) async fn changed(&mut self) -> HashSet<PathBuf> {
        let mut changed = HashSet::new();
        changed.extend(self.changes.recv().await);
        let cap = Instant::now() + SETTLE_CAP;
        while let Ok(Some(path)) = timeout_at(cap.min(Instant::now() + SETTLE), self.changes.recv()).await {
            changed.insert(path);
        }
        changed
    }

    fn watch(&mut self, folder: &Path, mode: RecursiveMode) {
        let watch = (folder.to_owned(), mode == RecursiveMode::Recursive);
        // A folder that is not there, or cannot be watched, has nothing to report; it is tried again with the next build.
        if !self.watched.contains(&watch) && self.watcher.watch(folder, mode).is_ok() {
            self.watched.insert(watch);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_source(&self, path: &Path) -> bool {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
        if self.targets.iter().any(|target| path.starts_with(target)) {
            return false;
        }
        if self.files.contains(path) {
            return true;
        }
        // What editors put beside the files that they save.
        let passing = name.starts_with('.') || name.starts_with('#') || name.ends_with('~') || name == "4913";
        !passing
            && (matches!(name, "Cargo.toml" | "build.rs") || self.folders.iter().any(|folder| path.starts_with(folder)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_source_files_count() {
        let known = Known {
            folders: [PathBuf::from("/w/a/src")].into(),
            files: [PathBuf::from("/w/templates/.mail.html")].into(),
            targets: [PathBuf::from("/w/a/src/target")].into(),
        };
        for source in ["/w/a/src/lib.rs", "/w/a/src/deep/mail.txt", "/w/a/Cargo.toml", "/w/templates/.mail.html"] {
            assert!(known.is_source(Path::new(source)), "{source}");
        }
        for other in [
            "/w/a/src/.lib.rs.swp",
            "/w/a/src/lib.rs~",
            "/w/Cargo.lock",
            "/w/a/src/target/debug/x.rs",
            "/w/b/src/lib.rs",
        ] {
            assert!(!known.is_source(Path::new(other)), "{other}");
        }
    }
}
