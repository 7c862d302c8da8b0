//! Everything observable, as one enum: the log lines and the tests' waits both hang off it.
//!
//! The rest of the host only announces; how a thing is said is decided in `lines`.

mod lines;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::broadcast;

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
    /// Notifications were asked for but do not arrive; jobs are found by polling.
    NotificationsMissing,
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
        lines::log(&event);
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
