//! The crontab: read at the start, and again whenever it changes, goes or comes.
//!
//! Events of its folder are hints; what is in the file is the truth. A version that cannot be used costs nothing: the one
//! before it stays in force.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::CronError;
use crate::{
    crontab::{CronItem, parse_crontab},
    events::{Event, Events},
};

/// The file is looked at this often, whatever the events say: they do not tell of everything, such as what a link leads to.
const LOOK: Duration = Duration::from_secs(10);
/// The same while its folder cannot be watched.
const BLIND_LOOK: Duration = Duration::from_secs(1);
/// How long no event may come before the file is read: it may be about to be written in several steps.
const SETTLE: Duration = Duration::from_millis(200);
/// The longest that events may put that off.
const SETTLE_CAP: Duration = Duration::from_secs(2);
/// What is larger is taken for something else.
const LARGEST: u64 = 16 * 1024 * 1024;

/// The file, and what of it is in force.
#[derive(Debug)]
pub(super) struct CrontabFile {
    path: PathBuf,
    events: Events,
    items: Vec<Arc<CronItem>>,
    seen: Seen,
    /// `None` while the folder cannot be watched; with it, which folder that is.
    watcher: Option<(RecommendedWatcher, (u64, u64))>,
    hints: Arc<Notify>,
}

/// What was found at the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Missing,
    Text(String),
    Unusable(String),
}

impl CrontabFile {
    /// Looks at the file for the first time. An empty path stands for no file.
    pub(super) fn open(path: PathBuf, tolerate_broken: bool, events: Events) -> Result<Self, CronError> {
        let hints = Arc::new(Notify::new());
        let mut file = Self { path, events, items: Vec::new(), seen: Seen::Missing, watcher: None, hints };
        if file.path.as_os_str().is_empty() {
            return Ok(file);
        }
        // Before the look, so that no change falls between the two.
        file.watch();
        match look(&file.path) {
            Seen::Missing => file.events.emit(Event::CrontabMissing { file: file.path.clone() }),
            seen => match parse(&seen) {
                Err(reason) if !tolerate_broken => return Err(CronError::Crontab { file: file.path, reason }),
                _ => drop(file.take(seen)),
            },
        }
        Ok(file)
    }

    /// What is in force.
    pub(super) fn items(&self) -> Vec<Arc<CronItem>> {
        self.items.clone()
    }

    /// Follows the file for ever and passes on what comes into force.
    pub(super) async fn follow(&mut self, items: &watch::Sender<Vec<Arc<CronItem>>>) {
        if self.path.as_os_str().is_empty() {
            std::future::pending().await
        }
        loop {
            self.watch();
            let patience = if self.watcher.is_some() { LOOK } else { BLIND_LOOK };
            if timeout(patience, self.hints.notified()).await.is_ok() {
                self.settle().await;
            }
            let path = self.path.clone();
            // The file may be on a server that does not answer. A look that panics would have seen nothing.
            let Ok(seen) = tokio::task::spawn_blocking(move || look(&path)).await else { continue };
            if seen != self.seen && self.take(seen).is_ok() {
                items.send_replace(self.items.clone());
            }
        }
    }

    async fn settle(&self) {
        let cap = Instant::now() + SETTLE_CAP;
        while timeout_at(cap.min(Instant::now() + SETTLE), self.hints.notified()).await.is_ok() {
            // Leaves the processor to others however fast the hints come.
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Brings what was seen into force, or says why that cannot be.
    fn take(&mut self, seen: Seen) -> Result<(), String> {
        let file = self.path.clone();
        let parsed = parse(&seen);
        let removed = seen == Seen::Missing;
        self.seen = seen;
        let event = match &parsed {
            Ok(_) if removed => Event::CrontabRemoved { file, items: self.items.len() },
            Ok(items) => Event::CrontabLoaded { file, items: items.len() },
            Err(reason) => {
                Event::CrontabRefused { file, reason: reason.replace('\n', "; "), in_force: self.items.len() }
            }
        };
        self.events.emit(event);
        self.items = parsed?;
        Ok(())
    }

    /// Watches the folder that the file is in, unless that is being done. The file itself may be replaced or not be there.
    fn watch(&mut self) {
        let Ok(file) = std::path::absolute(&self.path) else { return };
        let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
        let inode = fs::metadata(&folder).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if self.watcher.as_ref().map(|(_, watched)| *watched) == inode {
            return;
        }
        self.watcher = None;
        let hints = Arc::clone(&self.hints);
        let hear = move |event: notify::Result<notify::Event>| {
            if may_concern(&file, &event) {
                hints.notify_one();
            }
        };
        // Without a watcher the file is looked at often instead, which costs next to nothing.
        if let Some(inode) = inode
            && let Ok(mut watcher) = notify::recommended_watcher(hear)
            && watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok()
        {
            self.watcher = Some((watcher, inode));
        }
    }
}

/// The items of what was seen, or all that is wrong with it, one line for each.
fn parse(seen: &Seen) -> Result<Vec<Arc<CronItem>>, String> {
    match seen {
        Seen::Missing => Ok(Vec::new()),
        Seen::Text(text) => match parse_crontab(text) {
            Ok(items) => Ok(items.into_iter().map(Arc::new).collect()),
            Err(errors) => Err(errors.to_string()),
        },
        Seen::Unusable(reason) => Err(reason.clone()),
    }
}

fn look(path: &Path) -> Seen {
    let read = || -> io::Result<Seen> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Ok(Seen::Unusable("it is not a file".to_owned()));
        }
        if metadata.len() > LARGEST {
            return Ok(Seen::Unusable(format!("it has {} bytes, more than any crontab", metadata.len())));
        }
        let bytes = fs::read(path)?;
        Ok(match String::from_utf8(bytes) {
            Ok(text) => Seen::Text(text),
            Err(error) => {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
                Seen::Unusable(format!("line {line} is not UTF-8 text"))
            }
        })
    };
    match read() {
        Ok(seen) => seen,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Seen::Missing,
        Err(error) => Seen::Unusable(format!("it cannot be read: {error}")),
    }
}

/// Whether the file may have changed. Where it is a link into a folder that is swapped, only the swap is seen: any coming and
/// going in the folder counts.
fn may_concern(file: &Path, event: &notify::Result<notify::Event>) -> bool {
    let Ok(event) = event else { return true };
    match event.kind {
        // Reading it is what this host does itself.
        EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write) => false,
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => true,
        _ => event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(|path| path == file),
    }
}
