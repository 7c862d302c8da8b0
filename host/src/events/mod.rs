//! Everything observable, as one enum: the log lines and the tests' waits both hang off it.
//!
//! The rest of the host only announces; how a thing is said is decided in `lines`, and what it is called in `names`.
//!
//! # For those who know graphile-worker's events
//!
//! [`Event::name`] gives graphile-worker's name of whatever it announces as well. Its *worker* runs one job at a time, and
//! claims for itself. Here a pool has one claimer, which claims for all free slots at once, so a pool **is** one worker:
//! `worker:create`, `worker:stop` and `worker:release` come once per pool, `worker:getJob:start` once per claim, and the
//! `worker` of each event is the pool's id, which is what `locked_by` says. The events of one job come in this order:
//! `worker:getJob:start`, `job:start`, then `job:success` or `job:error` (and `job:failed` if it was the last attempt), then
//! `job:complete`. All but the first two come when the database has stored the end of the job.
//!
//! `pool:fatalError` and `worker:fatalError` do not exist, because a lost database is tried again for ever.

mod lines;
mod names;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::broadcast;
use tracing::{Level, level_filters::LevelFilter};

use crate::{plugin::BuildId, queue::Unlocked};

/// A plugin and its build, as every line about them names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginBuild {
    pub plugin: String,
    pub build: BuildId,
}

/// A job on the build that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun {
    /// The pool that runs it, as in `locked_by`.
    pub worker: Arc<str>,
    pub id: i64,
    pub task: Arc<str>,
    pub attempt: i16,
    pub max_attempts: i16,
    pub plugin: Arc<str>,
    pub build: BuildId,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    // The tasks folder.
    /// The folder is watched and its first listing was worked through.
    FolderReady {
        folder: PathBuf,
        plugins: usize,
        tasks: usize,
    },
    /// The folder is not there (any more); what was loaded keeps serving.
    FolderMissing {
        folder: PathBuf,
        reason: String,
    },
    /// The folder is there again.
    FolderBack {
        folder: PathBuf,
    },
    /// Changes cannot be watched; the folder is listed often instead.
    WatchFailed {
        folder: PathBuf,
        reason: String,
    },
    /// Others may write to the folder or a file of it, and the rules were told not to be strict.
    LaxPermissions {
        what: String,
        reason: String,
    },
    /// A file was refused. `serving` is the build of that plugin which goes on.
    FileRejected {
        file: String,
        reason: String,
        serving: Option<BuildId>,
    },
    /// A build was loaded and takes jobs; `replaced` is the one before it.
    PluginLoaded {
        build: PluginBuild,
        file: String,
        tasks: Vec<String>,
        replaced: Option<BuildId>,
        took: Duration,
    },
    /// A plugin's file is gone, and so are its tasks.
    PluginRemoved {
        build: PluginBuild,
        file: String,
        tasks: Vec<String>,
    },
    /// Some tasks of a file are not run, because this program has tasks of the same names compiled in.
    TasksHidden {
        build: PluginBuild,
        file: String,
        tasks: Vec<String>,
    },
    /// Another map is in force.
    TaskMapPublished {
        epoch: u64,
        tasks: usize,
        added: Vec<String>,
        removed: Vec<String>,
    },

    // Builds.
    /// A replaced or removed build finishes its jobs.
    Draining {
        build: PluginBuild,
        in_flight: usize,
    },
    /// A build is gone.
    Retired {
        build: PluginBuild,
    },
    /// A plugin's process ended by itself.
    PluginCrashed {
        build: PluginBuild,
        reason: String,
        in_flight: usize,
        restart_in: Duration,
    },
    /// It serves again.
    PluginRestarted {
        build: PluginBuild,
    },
    /// It crashed too often.
    PluginQuarantined {
        build: PluginBuild,
        reason: String,
    },
    /// A line that a plugin's process wrote to its standard output or error.
    PluginOutput {
        build: PluginBuild,
        error: bool,
        line: String,
    },

    // Jobs.
    /// `map` is the task map by which the job was claimed.
    JobStarted {
        job: JobRun,
        map: u64,
    },
    JobDone {
        job: JobRun,
        took: Duration,
    },
    /// `retry` is false when the job has failed for good.
    JobFailed {
        job: JobRun,
        message: String,
        retry: bool,
        took: Duration,
    },
    /// A task gave results for items that its job's payload does not have: the job counts as done.
    ResultsIgnored {
        job: JobRun,
        results: usize,
    },
    /// Follows [`Event::JobFailed`] where there is no other attempt.
    JobFailedForGood {
        job: JobRun,
        message: String,
    },
    /// The last event of a job that was started: the database has stored how it ended.
    JobCompleted {
        job: JobRun,
        error: Option<String>,
    },
    /// A claimed job went back without having started.
    JobReturned {
        id: i64,
        task: Arc<str>,
        reason: &'static str,
    },

    // The pool, and its claimer.
    PoolCreated {
        pool: Arc<str>,
    },
    /// The database is about to be asked for as many jobs as there are free slots.
    ClaimStarted {
        worker: Arc<str>,
        wanted: usize,
    },
    /// It had none.
    ClaimEmpty {
        worker: Arc<str>,
    },
    ClaimFailed {
        worker: Arc<str>,
        error: String,
    },
    /// No more jobs are claimed.
    WorkerStopped {
        worker: Arc<str>,
    },
    /// No job runs any more.
    WorkerReleased {
        worker: Arc<str>,
    },
    /// All that began with [`Event::Stopping`] has come to its end.
    StopCompleted {
        pool: Arc<str>,
        forceful: bool,
    },
    /// The pool is at its end; nothing of it is locked.
    PoolReleased {
        pool: Arc<str>,
    },

    // The database.
    /// The schema can be worked; `installed` if it was not there before.
    SchemaReady {
        number: i32,
        installed: bool,
        warning: Option<String>,
    },
    /// The worker begins to claim.
    WorkerReady {
        owner: String,
        concurrency: usize,
    },
    /// About to listen for notifications; `attempts` counts from 1 and begins anew after each success.
    ListenConnecting {
        attempts: u32,
    },
    /// Notifications arrive.
    Listening,
    /// They do not, or no longer; it is tried again.
    ListenFailed {
        attempts: u32,
        error: String,
    },
    /// A notification arrived.
    Notified {
        channel: String,
        payload: String,
    },
    /// Nobody listens any more.
    ListenReleased,
    /// Something asked of the database failed and is tried again; `repeated` if it had failed before.
    DatabaseTrouble {
        what: &'static str,
        error: String,
        retry_in: Duration,
        repeated: bool,
    },
    /// It went through again.
    DatabaseBack {
        what: &'static str,
    },

    /// The locks of jobs that run long were renewed, before anybody takes them for abandoned.
    LocksRenewed {
        jobs: u64,
    },
    /// Looking for locks that nobody lifted in hours.
    ResetLockedStarted,
    /// They are lifted; the next look is after `delay`.
    ResetLockedSucceeded {
        unlocked: Unlocked,
        delay: Duration,
    },
    ResetLockedFailed {
        error: String,
        delay: Duration,
    },
    /// Another program has changed the schema in a way that this one does not know: it stops.
    Outdated {
        number: i32,
        breaking: i32,
    },

    // The end.
    /// This process was told to stop, and obeys.
    SignalReceived {
        signal: i32,
        forceful: bool,
    },
    /// No more jobs are claimed.
    Stopping {
        running: usize,
        forceful: bool,
    },
    /// The host ends although the database did not take the results of these jobs.
    VerdictsLost {
        jobs: usize,
        owner: String,
    },
    /// All is done.
    Stopped,
}

/// Where events are announced. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    subscribers: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { subscribers: broadcast::Sender::new(1024) }
    }
}

impl Events {
    /// Announces an event: to the log, and to whoever subscribed.
    pub fn emit(&self, event: Event) {
        lines::log(&event);
        if self.subscribers.receiver_count() > 0 {
            // An error would mean that the last subscriber has just gone.
            let _ = self.subscribers.send(event);
        }
    }

    /// Announces an event that is made only if somebody hears it, in the log at this level or as a subscriber: what happens
    /// with each job costs nothing otherwise.
    pub fn emit_if_heard(&self, level: Level, make: impl FnOnce() -> Event) {
        if self.is_heard(level) {
            self.emit(make());
        }
    }

    /// Whether somebody would hear an event whose line in the log has this level.
    pub fn is_heard(&self, level: Level) -> bool {
        self.subscribers.receiver_count() > 0 || LevelFilter::current() >= level
    }

    /// Hears of all events from here on. A subscriber that falls more than 1,024 behind misses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.subscribers.subscribe()
    }
}
