//! Everything observable, as one enum: the log lines and the tests' waits both hang off it.
//!
//! The rest of the host only announces; how a thing is said is decided here.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::broadcast;
use tracing::{debug, error, info, warn};

use crate::plugin::BuildId;

/// A plugin and its build, as every line about them names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginBuild {
    pub plugin: String,
    pub build: BuildId,
}

/// A job on the build that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun {
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
    /// A claimed job went back without having started.
    JobReturned {
        id: i64,
        task: Arc<str>,
        reason: &'static str,
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
    /// Notifications arrive.
    Listening,
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

    // The end.
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
        log(&event);
        if self.subscribers.receiver_count() > 0 {
            // An error would mean that the last subscriber has just gone.
            let _ = self.subscribers.send(event);
        }
    }

    /// Hears of all events from here on. A subscriber that falls more than 1,024 behind misses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.subscribers.subscribe()
    }
}

/// One line per event. `event` is the name that log pipelines and the tests go by.
fn log(event: &Event) {
    match event {
        Event::FolderReady { folder, plugins, tasks } => {
            info!(event = "folder_ready", folder = %folder.display(), plugins, tasks, "watching the tasks folder");
        }
        Event::FolderMissing { folder, reason } => {
            warn!(event = "folder_missing", folder = %folder.display(), reason, "the tasks folder is missing; what is loaded keeps serving");
        }
        Event::FolderBack { folder } => {
            info!(event = "folder_back", folder = %folder.display(), "the tasks folder is back");
        }
        Event::WatchFailed { folder, reason } => {
            warn!(event = "watch_failed", folder = %folder.display(), reason, "the tasks folder cannot be watched and is listed every second instead: {reason}");
        }
        Event::LaxPermissions { what, reason } => {
            warn!(event = "lax_permissions", what, reason, "{what} is loaded although it is not safe: {reason}");
        }
        Event::FileRejected { file, reason, serving: Some(build) } => {
            error!(event = "file_rejected", file, serving = %build, "{file}: {reason} (build {build} keeps serving)");
        }
        Event::FileRejected { file, reason, serving: None } => {
            error!(event = "file_rejected", file, "{file}: {reason}");
        }
        Event::PluginLoaded { build: PluginBuild { plugin, build }, file, tasks, replaced: Some(old), took } => {
            info!(event = "plugin_loaded", plugin, %build, file, replaced = %old, tasks = tasks.join(","), took_ms = milliseconds(*took), "replaced plugin {plugin}: build {old} by {build}");
        }
        Event::PluginLoaded { build: PluginBuild { plugin, build }, file, tasks, replaced: None, took } => {
            info!(event = "plugin_loaded", plugin, %build, file, tasks = tasks.join(","), took_ms = milliseconds(*took), "loaded plugin {plugin}, build {build}");
        }
        Event::PluginRemoved { build: PluginBuild { plugin, build }, file, tasks } => {
            info!(event = "plugin_removed", plugin, %build, file, tasks = tasks.join(","), "removed plugin {plugin}: its file is gone");
        }
        Event::TaskMapPublished { epoch, tasks, added, removed } => {
            debug!(
                event = "task_map_published",
                epoch,
                tasks,
                added = added.join(","),
                removed = removed.join(","),
                "task map {epoch} is in force"
            );
        }
        Event::Draining { build: PluginBuild { plugin, build }, in_flight } => {
            info!(event = "draining", plugin, %build, in_flight, "build {build} of {plugin} finishes its running jobs: {in_flight}");
        }
        Event::Retired { build: PluginBuild { plugin, build } } => {
            debug!(event = "retired", plugin, %build, "build {build} of {plugin} is gone");
        }
        Event::PluginCrashed { build: PluginBuild { plugin, build }, reason, in_flight, restart_in } => {
            error!(event = "plugin_crashed", plugin, %build, in_flight, restart_in = ?restart_in, "plugin {plugin} crashed: {reason}; starting it again in {restart_in:?}");
        }
        Event::PluginRestarted { build: PluginBuild { plugin, build } } => {
            info!(event = "plugin_restarted", plugin, %build, "plugin {plugin} serves again");
        }
        Event::PluginQuarantined { build: PluginBuild { plugin, build }, reason } => {
            error!(event = "plugin_quarantined", plugin, %build, "plugin {plugin} crashed too often and is quarantined ({reason}); its jobs wait until a new build replaces {build}");
        }
        Event::PluginOutput { build: PluginBuild { plugin, build }, error: true, line } => {
            warn!(event = "plugin_output", plugin, %build, "{line}");
        }
        Event::PluginOutput { build: PluginBuild { plugin, build }, error: false, line } => {
            info!(event = "plugin_output", plugin, %build, "{line}");
        }
        Event::JobStarted { job, map } => {
            debug!(event = "job_started", job = job.id, task = &*job.task, plugin = &*job.plugin, build = %job.build, attempt = job.attempt, map, "job started");
        }
        Event::JobDone { job, took } => {
            debug!(event = "job_done", job = job.id, task = &*job.task, plugin = &*job.plugin, build = %job.build, attempt = job.attempt, took_ms = milliseconds(*took), "job done");
        }
        Event::JobFailed { job, message, retry, took } => {
            error!(
                event = "job_failed", job = job.id, task = &*job.task, plugin = &*job.plugin, build = %job.build, attempt = job.attempt,
                max_attempts = job.max_attempts, retry, took_ms = milliseconds(*took), "job failed{}: {message}", if *retry { "" } else { " for good" }
            );
        }
        Event::JobReturned { id, task, reason } => {
            debug!(event = "job_returned", job = id, task = &**task, "job given back unstarted: {reason}");
        }
        Event::SchemaReady { number, warning: Some(warning), .. } => {
            warn!(event = "schema_ready", number, "{warning}");
        }
        Event::SchemaReady { number, installed: true, .. } => {
            info!(event = "schema_ready", number, "installed the schema at revision {number}");
        }
        Event::SchemaReady { number, .. } => {
            debug!(event = "schema_ready", number, "the schema is at revision {number}")
        }
        Event::WorkerReady { owner, concurrency } => {
            info!(event = "worker_ready", owner, concurrency, "ready for jobs");
        }
        Event::Listening => debug!(event = "listening", "listening for new jobs"),
        Event::DatabaseTrouble { what, error, repeated: false, .. } => {
            warn!(event = "database_trouble", "could not {what}: {error}; trying until it goes through");
        }
        Event::DatabaseTrouble { what, error, retry_in, .. } => {
            debug!(
                event = "database_trouble",
                "could not {what}: {error}; trying again in {} ms",
                retry_in.as_millis()
            );
        }
        Event::DatabaseBack { what } => info!(event = "database_back", "could {what} again"),
        Event::Stopping { running, forceful: false } => {
            info!(event = "stopping", running, "stopping: claiming no more jobs, finishing {running}");
        }
        Event::Stopping { running, forceful: true } => {
            warn!(event = "stopping_now", running, "stopping now: cancelling {running} running jobs");
        }
        Event::VerdictsLost { jobs, owner } => {
            error!(
                event = "verdicts_lost",
                jobs,
                owner,
                "ending although the results of {jobs} jobs could not be stored: they stay locked by {owner} and will run again \
                 once that lock is released (graphile_worker.force_unlock_workers)"
            );
        }
        Event::Stopped => info!(event = "stopped", "stopped"),
    }
}

/// For log pipelines: a number with microseconds behind the point.
fn milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}
