//! Says that something in the tasks folder may have changed. It never says what: the listing of the folder is the truth.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::folder::is_candidate;
use crate::events::{Event as HostEvent, Events};

/// While the folder cannot be watched, it is listed this often.
const BLIND_RESCAN: Duration = Duration::from_secs(1);

/// What an event says about waiting for more of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hint {
    /// Something happens; more may come.
    Dirty,
    /// A file was completed: renamed into place, or closed by its writer.
    Complete,
}

/// Watches the folder, and its parent for the case that the folder itself is replaced.
#[derive(Debug)]
pub(super) struct Watcher {
    folder: PathBuf,
    events: Events,
    hints: mpsc::UnboundedReceiver<Hint>,
    /// `None` when the system cannot watch any more folders.
    system: Option<RecommendedWatcher>,
    /// Which folder is watched: its path may lead to another one by now.
    watched: Option<(u64, u64)>,
    settle: Duration,
    settle_cap: Duration,
}

impl Watcher {
    pub(super) fn new(folder: &Path, settle: Duration, settle_cap: Duration, events: Events) -> Self {
        let (sender, hints) = mpsc::unbounded_channel();
        // Events name the files below the path that was given to watch, so the comparison is with that.
        let path = folder.to_owned();
        let on_event = move |event: notify::Result<Event>| {
            if let Some(hint) = hint(&path, &event) {
                // Nobody listens any more when the host is stopping.
                let _ = sender.send(hint);
            }
        };
        let mut watcher = Self {
            folder: folder.to_owned(),
            system: notify::recommended_watcher(on_event).ok(),
            events,
            hints,
            watched: None,
            settle,
            settle_cap,
        };
        watcher.arm();
        watcher
    }

    /// Watches the folder that the path leads to now, if that is not the one that is watched.
    pub(super) fn arm(&mut self) {
        let Some(system) = &mut self.system else { return };
        let now = std::fs::metadata(&self.folder).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if now == self.watched && now.is_some() {
            return;
        }
        if self.watched.take().is_some() {
            // The kernel has forgotten a folder that was removed, and an error says just that.
            let _ = system.unwatch(&self.folder);
        }
        let parent = self.folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _ = system.watch(parent, RecursiveMode::NonRecursive);
        match system.watch(&self.folder, RecursiveMode::NonRecursive) {
            Ok(()) => self.watched = now,
            Err(_) if now.is_none() => {}
            Err(error) => {
                self.events.emit(HostEvent::WatchFailed { folder: self.folder.clone(), reason: explain(&error) });
                self.system = None;
            }
        }
    }

    /// How often to list the folder without being told to.
    pub(super) fn rescan(&self, usual: Duration) -> Duration {
        if self.system.is_some() { usual } else { usual.min(BLIND_RESCAN) }
    }

    /// Waits until something has changed and things have settled: at once for a completed file, else after a pause in the
    /// events or, where they never pause, after a while. Cancel-safe, but for the pause that begins anew.
    pub(super) async fn changed(&mut self) {
        let Some(mut hint) = self.hints.recv().await else { return std::future::pending().await };
        let cap = Instant::now() + self.settle_cap;
        while hint == Hint::Dirty {
            let pause = (Instant::now() + self.settle).min(cap);
            tokio::select! {
                more = self.hints.recv() => match more {
                    Some(next) => hint = next,
                    None => return,
                },
                () = sleep_until(pause) => break,
            }
        }
        while self.hints.try_recv().is_ok() {}
    }
}

fn hint(folder: &Path, event: &notify::Result<Event>) -> Option<Hint> {
    // Lost events and errors of the watcher are reasons to look, too.
    let Ok(event) = event else { return Some(Hint::Dirty) };
    // Reading the folder is what this host does itself.
    if let EventKind::Access(access) = event.kind
        && access != AccessKind::Close(AccessMode::Write)
    {
        return None;
    }
    let in_folder = |path: &PathBuf| path == folder || path.parent() == Some(folder);
    if !event.need_rescan() && !event.paths.is_empty() && !event.paths.iter().any(in_folder) {
        return None;
    }
    let complete = matches!(
        event.kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
    );
    let is_plugin = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(is_candidate);
    Some(if complete && event.paths.last().is_some_and(is_plugin) { Hint::Complete } else { Hint::Dirty })
}

fn explain(error: &notify::Error) -> String {
    match error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            "this user watches too many folders; raise the sysctl fs.inotify.max_user_watches".to_owned()
        }
        _ => error.to_string(),
    }
}
