//! Everything observable, as one enum: the log lines and the tests' waits both hang off it.
//!
//! The rest of the host only announces; how a thing is said is decided in `lines`, and what it is called in `names`.

mod announce;
mod lines;
mod names;
mod refusals;
mod subjects;

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    build_id::BuildId,
    parts::PartFailure,
    queue::{CronJob, Released, Unlocked},
};
pub use announce::Events;
pub use refusals::{LeftResult, Refusal};
pub use subjects::{
    BackfilledItem, FailedRetry, FileRejection, FolderTrouble, JobRun, PluginBuild, RefusedTick, UnknownSection,
};

/// Something that happened. [`Event::name`] says how this goes together with graphile-worker's events.
#[derive(Debug, Clone)]
pub enum Event {
    /// The folder is watched, its first listing done.
    FolderReady {
        folder: PathBuf,
        plugins: usize,
        executables: usize,
        tasks: usize,
    },
    /// The host starts without any task: it works no job before a plugin comes.
    NoTasks {
        folder: PathBuf,
    },
    /// The folder is not there (any more).
    FolderMissing(FolderTrouble),
    /// The folder is there, but cannot be read or is not safe.
    FolderUnusable(FolderTrouble),
    /// The folder can be used again.
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
    /// A file was refused.
    FileRejected(FileRejection),
    /// A refused build was launched again and did not start.
    FileStillRejected(FailedRetry),
    /// A file that was refused holds the build again that serves.
    FileRestored(String, BuildId),
    /// The settings have a section for a plugin that no file is.
    UnknownPluginSection(UnknownSection),
    /// A plugin or executable has a setting that does nothing for its kind, in a sentence.
    SettingWithoutEffect(String),
    /// A file or folder is no plugin and no executable that can be a task; `unexpected` if it may have been meant to.
    FileSkipped {
        file: String,
        reason: String,
        unexpected: bool,
    },
    /// An executable's task is another file's, which goes first; it gets its jobs when that file is gone.
    TaskShadowed {
        file: String,
        task: String,
        by: String,
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
    /// It crashed `crashes` times, which the build before it did not: that one serves again, until the file changes.
    RolledBack {
        build: PluginBuild,
        file: String,
        to: BuildId,
        crashes: u32,
    },
    /// A line that a plugin's process wrote to its standard output or error.
    PluginOutput {
        build: PluginBuild,
        error: bool,
        line: String,
    },
    // Jobs.
    /// A build has accepted the job, and its code is about to run: once for each attempt, before its end. `map` is the task map by
    /// which the job was claimed.
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
    /// A task gave results for items that its payload does not have: the job counts as done, whatever `message` says.
    ResultsIgnored {
        job: JobRun,
        results: usize,
        message: String,
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
    /// A line that the process of an executable wrote to its standard output or error while it ran this job.
    JobOutput {
        id: i64,
        task: Arc<str>,
        build: PluginBuild,
        error: bool,
        line: String,
    },
    /// A claimed job went back: it has not started, or was cancelled by the stop of this host.
    JobReturned {
        id: i64,
        task: Arc<str>,
        reason: &'static str,
    },

    // The pool, and its claimer.
    PoolCreated(Arc<str>),
    /// The database is about to be asked for as many jobs as there are free slots.
    ClaimStarted {
        worker: Arc<str>,
        wanted: usize,
    },
    /// It had none.
    ClaimEmpty(Arc<str>),
    ClaimFailed {
        worker: Arc<str>,
        error: String,
    },
    /// No more jobs are claimed.
    WorkerStopped(Arc<str>),
    /// No job runs any more.
    WorkerReleased(Arc<str>),
    /// All that began with [`Event::Stopping`] has come to its end.
    StopCompleted {
        pool: Arc<str>,
        forceful: bool,
    },
    /// The pool is at its end; nothing of it is locked.
    PoolReleased(Arc<str>),

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
    /// Notifications were asked for but do not arrive; jobs are found by polling.
    NotificationsMissing,
    /// A request to the database failed and is tried again, not for the first time if `repeated`. A `reminder` says for how long.
    DatabaseTrouble {
        what: &'static str,
        error: String,
        retry_in: Duration,
        repeated: bool,
        reminder: Option<Duration>,
    },
    /// It went through again, after `lasted`.
    DatabaseBack {
        what: &'static str,
        lasted: Duration,
    },
    /// A job that has ended was not this pool's any more: it was deleted, or its lock released. Its result is not stored.
    VerdictOverruled {
        id: i64,
        task: Option<Arc<str>>,
    },
    Refused(Refusal),
    /// Nobody can see whether this host lives, because its connection does not keep locks.
    LivenessUnavailable,
    /// These hosts have died, and what they had is free.
    TakenOver(Released),
    /// These were locked in this host's name although it did not have them, as after a failover, and are free now.
    GivenBack(Unlocked),
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
    // Schedules.
    /// There is no crontab (yet).
    CrontabMissing {
        file: PathBuf,
    },
    /// What the crontab says is in force.
    CrontabLoaded {
        file: PathBuf,
        items: usize,
    },
    /// The crontab cannot be used; `in_force` of its items, from before, go on.
    CrontabRefused {
        file: PathBuf,
        reason: String,
        in_force: usize,
    },
    /// The crontab is gone, and so are its items.
    CrontabRemoved {
        file: PathBuf,
        items: usize,
    },
    /// A plugin declares a schedule that cannot be read.
    PluginScheduleRefused {
        plugin: String,
        task: String,
        reason: String,
    },
    /// Two sources have a schedule with this identifier; that of `left_out` does not count.
    ScheduleOverridden {
        identifier: String,
        kept: String,
        left_out: String,
    },
    /// Schedules came into force or went, by their identifiers; so many are in force.
    SchedulesChanged {
        added: Vec<String>,
        removed: Vec<String>,
        items: usize,
    },
    /// `cron:starting`
    CronStarting {
        start: Timestamp,
        items: usize,
    },
    /// `cron:started`: schedules are registered, and what was missed is made up for.
    CronStarted {
        start: Timestamp,
        items: usize,
    },
    /// `cron:backfill`: the jobs of a minute that was missed are about to be added.
    CronBackfill {
        timestamp: Timestamp,
        items: Vec<BackfilledItem>,
    },
    /// `cron:prematureTimer`: the clock was set back.
    CronPrematureTimer {
        current: Timestamp,
        expected: Timestamp,
    },
    /// `cron:overdueTimer`: the clock was set forward, or the machine slept. Minutes that went by are made up for.
    CronOverdueTimer {
        current: Timestamp,
        expected: Timestamp,
    },
    /// `cron:schedule`: the jobs of a minute are about to be added.
    CronSchedule {
        timestamp: Timestamp,
        jobs: Arc<[CronJob]>,
    },
    /// `cron:scheduled`: the jobs of a minute are stored, those of the schedules in `added` by this host.
    CronScheduled {
        timestamp: Timestamp,
        jobs: Arc<[CronJob]>,
        added: Vec<String>,
    },
    /// The database does not take the job of a schedule at this minute.
    CronItemFailed(RefusedTick),
    /// Ticks that were due from one minute until before the other waited for too long and are given up.
    CronTicksGivenUp {
        from: Timestamp,
        until: Timestamp,
    },

    // The end.
    /// A part of the host failed, so the host stops.
    PartFailed(PartFailure),
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
