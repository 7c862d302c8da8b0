//! Says that something in the tasks folder may have changed. It never says what: the listing of the folder is the truth.

use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind, RenameMode},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::listing::is_plugin_path;
use crate::events::{Event as HostEvent, Events};

/// While the folder cannot be watched, it is listed this often.
const BLIND_RESCAN: Duration = Duration::from_secs(1);

/// What an event says about waiting for more of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hint {
    /// Something happens; more may come.
    Dirty,
    /// The folder itself or one below it was removed, renamed or made. What was watched may be gone, and its inode's number reused.
    Folder,
    /// A file was completed: renamed into place, or closed by its writer.
    Complete,
}

/// The folders below the tasks folder that are watched, shared with whoever gets the system's events.
type Below = Arc<ArcSwap<BTreeSet<PathBuf>>>;

/// Watches the folder and those below it, and its parent for the case that the folder itself is replaced.
#[derive(Debug)]
pub(super) struct Watcher {
    folder: PathBuf,
    events: Events,
    hints: mpsc::UnboundedReceiver<Hint>,
    /// `None` when the system cannot watch any more folders.
    system: Option<RecommendedWatcher>,
    below: Below,
    /// Which folder is watched: its path may lead to another one by now.
    watched: Option<(u64, u64)>,
    settle: Duration,
    settle_cap: Duration,
    /// Until when a change that was heard of waits for more, at most: kept here, for [`Watcher::changed`] may be dropped
    /// while it waits.
    unsettled_until: Option<Instant>,
    /// That the folder cannot be watched is said once.
    announced: bool,
}

impl Watcher {
    pub(super) fn new(folder: &Path, settle: Duration, settle_cap: Duration, events: Events) -> Self {
        // Events name the files below the absolute path of what is watched, so the comparison is with that.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let (_, hints) = mpsc::unbounded_channel();
        let mut watcher = Self {
            folder,
            events,
            hints,
            system: None,
            below: Below::default(),
            watched: None,
            settle,
            settle_cap,
            unsettled_until: None,
            announced: false,
        };
        watcher.arm();
        watcher
    }

    /// Changes how long it waits for things to settle.
    pub(super) fn set_pace(&mut self, settle: Duration, settle_cap: Duration) {
        (self.settle, self.settle_cap) = (settle, settle_cap);
    }

    /// Watches the folder that the path leads to now, if that is not the one that is watched.
    pub(super) fn arm(&mut self) {
        let now = std::fs::metadata(&self.folder).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if now == self.watched && now.is_some() {
            return;
        }
        match self.watch() {
            Ok(()) => self.watched = now,
            Err(error) => self.fail(&error),
        }
    }

    /// Watches exactly these folders below the folder, which are sorted, and says whether that are more than before.
    pub(super) fn follow(&mut self, folders: &[PathBuf]) -> bool {
        let Some(system) = self.system.as_mut().filter(|_| self.watched.is_some()) else { return false };
        let before = self.below.load_full();
        // In force before the first watch, so that no event of a new folder is taken for that of a file. Nothing may be
        // locked here: the system's watcher answers only when its handler, which looks into this, has returned.
        self.below.store(Arc::new(folders.iter().cloned().collect()));
        for gone in before.iter().filter(|folder| folders.binary_search(folder).is_err()) {
            // Most have gone, and their watch with them.
            let _ = system.unwatch(gone);
        }
        let mut unwatched = BTreeSet::new();
        let mut more = false;
        let mut failed = None;
        for folder in folders.iter().filter(|folder| !before.contains(*folder)) {
            match system.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => more = true,
                Err(error) => {
                    unwatched.insert(folder);
                    // Removed meanwhile, of which the folder above it tells.
                    if folder.exists() {
                        failed = Some(error);
                    }
                }
            }
        }
        if !unwatched.is_empty() {
            let watched = folders.iter().filter(|folder| !unwatched.contains(folder));
            self.below.store(Arc::new(watched.cloned().collect()));
        }
        if let Some(error) = failed {
            self.fail(&error);
        }
        more
    }

    fn fail(&mut self, error: &notify::Error) {
        (self.system, self.watched) = (None, None);
        if !std::mem::replace(&mut self.announced, true) {
            self.events.emit(HostEvent::WatchFailed { folder: self.folder.clone(), reason: explain(error) });
        }
    }

    /// Begins anew each time: a system watcher keeps what it knows of a folder that has gone, by its path.
    fn watch(&mut self) -> notify::Result<()> {
        (self.system, self.watched) = (None, None);
        let (sender, hints) = mpsc::unbounded_channel();
        let (folder, below) = (self.folder.clone(), Below::default());
        self.below = Arc::clone(&below);
        let mut system = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let is_watched = |path: &PathBuf| below.load().contains(path);
            if let Some(hint) = hint(&folder, is_watched, &event) {
                // Nobody listens any more when the host is stopping.
                let _ = sender.send(hint);
            }
        })?;
        self.hints = hints;
        let parent = self.folder.parent().unwrap_or(Path::new("/"));
        // A parent that may not be read is no reason to do without the folder's own events.
        let _ = system.watch(parent, RecursiveMode::NonRecursive);
        match system.watch(&self.folder, RecursiveMode::NonRecursive) {
            Err(error) if self.folder.exists() => return Err(error),
            // Not there (yet): the parent will tell.
            Ok(()) | Err(_) => self.system = Some(system),
        }
        Ok(())
    }

    /// How often to list the folder without being told to. A folder that is missing may come back where only a link
    /// leads, and then nobody tells.
    pub(super) fn rescan(&self, usual: Duration) -> Duration {
        if self.watched.is_some() { usual } else { usual.min(BLIND_RESCAN) }
    }

    /// Waits until something has changed and things have settled: at once for a completed file, else after a pause in the
    /// events or, where they never pause, after a while. When it is dropped in between, the next call goes on waiting.
    pub(super) async fn changed(&mut self) {
        loop {
            let Some(cap) = self.unsettled_until else {
                match self.hints.recv().await {
                    Some(hint) => self.heed(hint),
                    None => std::future::pending().await,
                }
                continue;
            };
            let pause = (Instant::now() + self.settle).min(cap);
            tokio::select! {
                Some(hint) = self.hints.recv() => self.heed(hint),
                () = sleep_until(pause) => break,
            }
        }
        self.unsettled_until = None;
        while let Ok(hint) = self.hints.try_recv() {
            if hint == Hint::Folder {
                self.watched = None;
            }
        }
    }

    fn heed(&mut self, hint: Hint) {
        let now = Instant::now();
        match hint {
            Hint::Complete => self.unsettled_until = Some(now),
            Hint::Folder => self.watched = None,
            Hint::Dirty => {}
        }
        self.unsettled_until.get_or_insert(now + self.settle_cap);
    }
}

fn hint(folder: &Path, is_watched: impl Fn(&PathBuf) -> bool, event: &notify::Result<Event>) -> Option<Hint> {
    // Lost events and errors of the watcher are reasons to look, too.
    let Ok(event) = event else { return Some(Hint::Dirty) };
    // Reading the folder is what this host does itself.
    if let EventKind::Access(access) = event.kind
        && access != AccessKind::Close(AccessMode::Write)
    {
        return None;
    }
    let in_folder = |path: &PathBuf| path.starts_with(folder);
    if !event.need_rescan() && !event.paths.is_empty() && !event.paths.iter().any(in_folder) {
        return None;
    }
    if matches!(event.kind, EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)))
        && event.paths.iter().any(|path| path == folder || is_watched(path))
    {
        return Some(Hint::Folder);
    }
    let complete = matches!(
        event.kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both))
    );
    // Of other files, only a while without changes tells that they are complete.
    Some(if complete && event.paths.last().is_some_and(|path| is_plugin_path(path)) {
        Hint::Complete
    } else {
        Hint::Dirty
    })
}

fn explain(error: &notify::Error) -> String {
    let too_many_files = rustix::io::Errno::MFILE.raw_os_error();
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            "this user watches too many folders; raise the sysctl fs.inotify.max_user_watches".to_owned()
        }
        notify::ErrorKind::Io(error) if error.raw_os_error() == Some(too_many_files) => {
            "this user has too many watchers, or this process too many files; raise the sysctl fs.inotify.max_user_instances, or ulimit -n".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, Flag, RemoveKind};

    use super::*;

    fn hint_of(kind: EventKind, path: &str) -> Option<Hint> {
        let is_watched = |path: &PathBuf| path.ends_with("mail");
        hint(Path::new("/a/tasks"), is_watched, &Ok(Event::new(kind).add_path(path.into())))
    }

    #[test]
    fn reading_the_folder_is_no_reason_to_read_it_again() {
        for access in [AccessKind::Open(AccessMode::Any), AccessKind::Read, AccessKind::Close(AccessMode::Read)] {
            assert_eq!(hint_of(EventKind::Access(access), "/a/tasks/x.so"), None);
            assert_eq!(hint_of(EventKind::Access(access), "/a/tasks"), None);
        }
    }

    #[test]
    fn a_completed_plugin_is_told_from_what_may_go_on() {
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        assert_eq!(hint_of(closed, "/a/tasks/x.so"), Some(Hint::Complete));
        assert_eq!(hint_of(renamed, "/a/tasks/x.so"), Some(Hint::Complete));
        assert_eq!(hint_of(closed, "/a/tasks/.x.so.8Kq"), Some(Hint::Dirty));
        assert_eq!(hint_of(renamed, "/a/tasks/..data"), Some(Hint::Dirty));
        assert_eq!(hint_of(EventKind::Create(CreateKind::File), "/a/tasks/x.so"), Some(Hint::Dirty));
        assert_eq!(hint_of(EventKind::Modify(ModifyKind::Data(DataChange::Any)), "/a/tasks/x.so"), Some(Hint::Dirty));
    }

    #[test]
    fn of_the_parent_only_the_folder_itself_matters() {
        assert_eq!(hint_of(EventKind::Create(CreateKind::File), "/a/other"), None);
        assert_eq!(hint_of(EventKind::Remove(RemoveKind::Folder), "/a/tasks"), Some(Hint::Folder));
        assert_eq!(hint_of(EventKind::Create(CreateKind::Folder), "/a/tasks"), Some(Hint::Folder));
    }

    #[test]
    fn a_watched_folder_below_is_watched_anew_when_it_moves_and_a_new_one_is_looked_into() {
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::From));
        assert_eq!(hint_of(renamed, "/a/tasks/mail"), Some(Hint::Folder));
        assert_eq!(hint_of(EventKind::Remove(RemoveKind::Folder), "/a/tasks/mail"), Some(Hint::Folder));
        assert_eq!(hint_of(EventKind::Create(CreateKind::Folder), "/a/tasks/other"), Some(Hint::Dirty));
        assert_eq!(hint_of(EventKind::Create(CreateKind::File), "/a/tasks/mail/send.sh"), Some(Hint::Dirty));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert_eq!(hint_of(closed, "/a/tasks/mail/libx.so"), Some(Hint::Complete));
        assert_eq!(hint_of(closed, "/a/tasks/mail/send.sh"), Some(Hint::Dirty));
    }

    #[test]
    fn lost_events_and_errors_are_reasons_to_look() {
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        let hint = |event| hint(Path::new("/a/tasks"), |_| false, &event);
        assert_eq!(hint(Ok(overflow)), Some(Hint::Dirty));
        assert_eq!(hint(Err(notify::Error::generic("any"))), Some(Hint::Dirty));
    }

    #[test]
    fn a_limit_of_the_system_is_named() {
        let watches = notify::Error::new(notify::ErrorKind::MaxFilesWatch);
        assert!(explain(&watches).contains("fs.inotify.max_user_watches"));
        let instances = std::io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert!(explain(&notify::Error::io(instances)).contains("fs.inotify.max_user_instances"));
    }

    #[tokio::test]
    async fn a_hint_survives_that_the_wait_for_it_is_dropped() {
        let folder = tempfile::tempdir().expect("a folder");
        let hour = Duration::from_secs(3600);
        let mut watcher = Watcher::new(folder.path(), hour, hour, Events::default());
        watcher.heed(Hint::Dirty);
        let short = tokio::time::timeout(Duration::from_millis(1), watcher.changed()).await;
        assert!(short.is_err(), "it waits for things to settle");
        watcher.settle = Duration::ZERO;
        tokio::time::timeout(Duration::from_secs(10), watcher.changed()).await.expect("the change is still known");
    }

    /// The system's watcher answers a new watch only when its handler has returned. A lock that both want would stop the host
    /// from following its folder for good, as it once did.
    #[test]
    fn folders_can_be_followed_while_events_come() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_owned();
        let folders: Vec<PathBuf> = (10..30).map(|number| root.join(format!("folder{number}"))).collect();
        let (done, finished) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut watcher = Watcher::new(&root, Duration::ZERO, Duration::ZERO, Events::default());
            for round in 0..150 {
                for folder in &folders {
                    // Events for the handler, right before the next watches.
                    let _ = if round % 2 == 0 { std::fs::create_dir(folder) } else { std::fs::remove_dir(folder) };
                }
                let there: Vec<PathBuf> = folders.iter().filter(|folder| folder.exists()).cloned().collect();
                watcher.follow(&there);
            }
            let _ = done.send(());
        });
        finished.recv_timeout(Duration::from_secs(60)).expect("the folders are followed to the end");
    }
}
