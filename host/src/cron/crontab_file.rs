//! The crontab: read at the start, and again whenever it changes, goes or comes.
//!
//! It is asked for its status every second, which costs less than a watcher and sees more: where links lead, and what changes on
//! a file server. A version that cannot be used costs nothing: the one before it stays in force.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::CronError;
use crate::{
    blocking::off_the_runtime,
    crontab::{CronItem, parse_crontab},
    events::{Event, Events},
};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long it must have stayed as it is before it is read: it may be about to be written in several steps.
const SETTLE: Duration = Duration::from_millis(200);
/// The longest that changes may put that off.
const SETTLE_CAP: Duration = Duration::from_secs(2);
/// Whatever its status says, it is read again after so long.
const REREAD: Duration = Duration::from_secs(10);
/// What is larger is taken for something else.
const LARGEST: u64 = 16 * 1024 * 1024;

/// What of the file is in force.
#[derive(Debug, Clone, Default)]
pub(super) struct CrontabContents {
    pub(super) items: Vec<Arc<CronItem>>,
    /// Why the file as it is now is not: the items are those of its last version that could be used.
    pub(super) refused: Option<String>,
}

/// The file, and what of it is in force.
#[derive(Debug)]
pub(super) struct CrontabFile {
    path: PathBuf,
    events: Events,
    contents: CrontabContents,
    seen: Seen,
    /// Its status before it was last read.
    status: Status,
}

/// What differs when the file is another one or was written to; `None`: there is none.
type Status = Option<(u64, u64, u64, i64, i64)>;

/// The items of what was seen, or all that is wrong with it, one line for each.
type Parsed = Result<Vec<Arc<CronItem>>, String>;

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
        let status = status(&path);
        let mut file = Self { path, events, contents: CrontabContents::default(), seen: Seen::Missing, status };
        if file.path.as_os_str().is_empty() {
            return Ok(file);
        }
        match look(&file.path) {
            Seen::Missing => file.events.emit(Event::CrontabMissing { file: file.path.clone() }),
            seen => match parse(&seen) {
                Err(reason) if !tolerate_broken => return Err(CronError::Crontab { file: file.path, reason }),
                parsed => file.take(seen, parsed),
            },
        }
        Ok(file)
    }

    /// What is in force.
    pub(super) fn contents(&self) -> CrontabContents {
        self.contents.clone()
    }

    /// Follows the file for ever and passes on what comes into force, or that it does not.
    pub(super) async fn follow(&mut self, contents: &watch::Sender<CrontabContents>) {
        if self.path.as_os_str().is_empty() {
            std::future::pending().await
        }
        let mut read_at = Instant::now();
        loop {
            sleep(LOOK).await;
            let mut now = self.ask(status).await;
            if now != self.status {
                now = self.settled(now).await;
            } else if read_at.elapsed() < REREAD {
                continue;
            }
            let seen = self.ask(look).await;
            (self.status, read_at) = (now, Instant::now());
            if seen == self.seen {
                continue;
            }
            let (parsed, seen) = off_the_runtime(move || (parse(&seen), seen)).await;
            self.take(seen, parsed);
            contents.send_replace(self.contents());
        }
    }

    /// Waits until the status stays what it is, though not for ever, and gives it.
    async fn settled(&self, mut now: Status) -> Status {
        let cap = Instant::now() + SETTLE_CAP;
        loop {
            sleep(SETTLE).await;
            let before = std::mem::replace(&mut now, self.ask(status).await);
            if now == before || Instant::now() >= cap {
                return now;
            }
        }
    }

    /// Brings what was seen into force, or says why that cannot be.
    fn take(&mut self, seen: Seen, parsed: Parsed) {
        let file = self.path.clone();
        let removed = seen == Seen::Missing;
        self.seen = seen;
        let in_force = self.contents.items.len();
        let event = match &parsed {
            Ok(_) if removed => Event::CrontabRemoved { file, items: in_force },
            Ok(items) => Event::CrontabLoaded { file, items: items.len() },
            Err(reason) => Event::CrontabRefused { file, reason: reason.replace('\n', "; "), in_force },
        };
        self.events.emit(event);
        match parsed {
            Ok(items) => self.contents = CrontabContents { items, refused: None },
            Err(reason) => self.contents.refused = Some(reason),
        }
    }

    /// Off the runtime's threads, because the file may be on a server that does not answer.
    async fn ask<T: Send + 'static>(&self, question: fn(&Path) -> T) -> T {
        let path = self.path.clone();
        off_the_runtime(move || question(&path)).await
    }
}

fn status(path: &Path) -> Status {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()))
}

fn parse(seen: &Seen) -> Parsed {
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
