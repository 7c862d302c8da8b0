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
mod sources;

use std::{fmt, path::PathBuf, sync::Arc};

use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use clock::{Clock, SystemClock};
pub use sources::PluginSchedule;

use crate::{crontab::CronItem, events::Events, queue::Database};
use crontab_file::CrontabFile;
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
    items: watch::Sender<Vec<Arc<CronItem>>>,
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
        let items = watch::Sender::new(file.items());
        let sources = Sources::new(items.subscribe(), sources.items, sources.plugins, events.clone());
        let due = Arc::new(DueWork::default());
        let scheduler = Scheduler::new(sources, clock, Arc::clone(&due), events.clone());
        Ok(Self { file, items, scheduler, recorder: Recorder::new(database, due, events, served) })
    }

    /// Adds jobs when they are due, until told to stop; then it ends at once.
    ///
    /// Nothing is lost by ending in the middle of a statement: it is carried out or not, and other hosts see which.
    pub async fn run(self, stop: CancellationToken) {
        let Self { mut file, items, scheduler, mut recorder } = self;
        tokio::select! {
            () = stop.cancelled() => {}
            () = file.follow(&items) => {}
            () = scheduler.run() => {}
            () = recorder.run() => {}
        }
    }
}
