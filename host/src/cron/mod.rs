//! A clock adds jobs: the schedules of the crontab file and of the plugins, each tick once in the whole fleet.
//!
//! ```text
//! crontab file ─┐
//! given items  ─┼─▶ sources ─▶ scheduler ── what is due ──▶ recorder ─▶ Postgres
//! plugins      ─┘                 ▲
//!                               clock
//! ```
//!
//! The scheduler never waits for the database, so that what is due stays due while the database is away. Nothing here knows
//! how jobs run.

mod backfill;
mod clock;
mod crontab_file;
mod due;
mod job;
mod recorder;
mod scheduler;
mod snapshot;
mod sources;

use std::{fmt, path::PathBuf, sync::Arc};

use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use clock::{Clock, SystemClock};
pub use snapshot::{CronHandle, CronSnapshot, OverriddenSchedule, PluginSchedule, RefusedSchedule, ScheduleSnapshot};

use crate::{crontab::CronItem, events::Events, queue::Database};
use crontab_file::{CrontabContents, CrontabFile};
use due::DueWork;
use recorder::Recorder;
use scheduler::Scheduler;
use sources::Sources;

/// The reason why the schedules cannot be started.
#[derive(Debug, Error)]
pub enum CronError {
    /// There is one line for each that is wrong.
    #[error(
        "not starting: the crontab {} cannot be used; mend or remove it, or use --watch to start without:\n  {}",
        .file.display(), .reason.replace('\n', "\n  ")
    )]
    Crontab { file: PathBuf, reason: String },
}

/// Where schedules come from. Of two with the same identifier the first counts, in the order of these fields.
#[derive(Debug)]
pub struct CronSources {
    /// Is followed: it may change, go and come. Empty: no file.
    pub crontab: PathBuf,
    /// Those of the program that runs this host.
    pub items: Vec<CronItem>,
    /// Those that plugins declare.
    pub plugins: watch::Receiver<Vec<PluginSchedule>>,
    /// What this host serves itself.
    pub served: Arc<dyn ServedTasks>,
}

/// The tasks that this host serves at the moment.
pub trait ServedTasks: fmt::Debug + Send + Sync {
    fn names(&self) -> Vec<String>;
}

/// The schedules of this host and the clock that carries them out.
#[derive(Debug)]
pub struct Cron {
    file: CrontabFile,
    contents: watch::Sender<CrontabContents>,
    handle: CronHandle,
    scheduler: Scheduler,
    recorder: Recorder,
}

impl Cron {
    /// Reads the crontab for the first time. If it cannot be used, that is an error, or with `tolerate_broken` an event.
    pub fn open(
        sources: CronSources,
        tolerate_broken: bool,
        database: Database,
        clock: Arc<dyn Clock>,
        events: Events,
    ) -> Result<Self, CronError> {
        let served = Arc::clone(&sources.served);
        let file = CrontabFile::open(sources.crontab, tolerate_broken, events.clone())?;
        let contents = watch::Sender::new(file.contents());
        let sources = Sources::new(contents.subscribe(), sources.items, sources.plugins, events.clone());
        let handle = CronHandle { in_force: Arc::default(), due: Arc::new(DueWork::default()), clock };
        let scheduler = Scheduler::new(sources, &handle, events.clone());
        let recorder = Recorder::new(database, Arc::clone(&handle.due), events, served);
        Ok(Self { file, contents, handle, scheduler, recorder })
    }

    /// Reads the schedules from elsewhere.
    pub fn handle(&self) -> CronHandle {
        self.handle.clone()
    }

    /// Adds jobs when they are due, until told to stop; then it ends at once.
    ///
    /// Nothing is lost by ending in the middle of a statement: it is carried out or not, and other hosts see which.
    pub async fn run(self, stop: CancellationToken) {
        let Self { mut file, contents, scheduler, mut recorder, .. } = self;
        tokio::select! {
            () = stop.cancelled() => {}
            () = file.follow(&contents) => {}
            () = scheduler.run() => {}
            () = recorder.run() => {}
        }
    }
}
