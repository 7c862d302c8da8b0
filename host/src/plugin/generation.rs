//! One build of a plugin, from launch to the end of its last job.

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::image::{BuildId, Image};
use crate::events::Events;

/// Where a plugin's code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// In a process of its own, one per build.
    #[default]
    Child,
    /// In the host's process.
    InProcess,
}

/// What `taskbay.toml` says of one plugin.
#[derive(Debug, Clone)]
pub struct PluginSettings {
    /// Where the plugin runs.
    pub isolation: Isolation,
    /// The most memory, in bytes, that the plugin's process may allocate; only for [`Isolation::Child`].
    pub memory_limit: Option<u64>,
    /// How long a job may run whose task states no limit of its own.
    pub timeout: Option<Duration>,
    /// How long a job may take to end after it was told to stop, before its future is dropped and then its process killed.
    pub cancel_grace: Duration,
    /// How long loading and starting up may take.
    pub start_timeout: Duration,
    /// Handed to the plugin's start-up: a JSON object.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            memory_limit: None,
            timeout: None,
            cancel_grace: Duration::from_millis(500),
            start_timeout: Duration::from_secs(10),
            settings: serde_json::Map::new(),
        }
    }
}

/// What the host does for its plugins.
#[derive(Debug, Clone)]
pub struct HostServices {
    /// Stores the jobs that plugins add.
    pub add_job: Arc<dyn AddJob>,
    /// Hears of crashes, restarts and log lines.
    pub events: Events,
    /// The program that runs isolated plugins when called as `taskbay plugin-child`: this one, unless a library user says
    /// otherwise.
    pub program: PathBuf,
}

/// Stores jobs on behalf of plugins.
pub trait AddJob: std::fmt::Debug + Send + Sync + 'static {
    /// Adds the job that `spec` describes (the JSON object of [`taskbay_abi::ADD_JOB_SPEC`]) and returns its id, or says
    /// why it could not.
    fn add_job(&self, spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>>;
}

/// A task of a plugin, as its build declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSpec {
    /// The identifier that jobs name.
    pub name: String,
    /// One line for people; may be empty.
    pub description: String,
    /// How long a job may run.
    pub timeout: Option<Duration>,
    /// At which attempt a job fails for good even if it was added with more.
    pub max_attempts: Option<u32>,
}

/// One job as a plugin gets it. Times are microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct JobInput<'a> {
    pub id: i64,
    pub task: &'a str,
    pub attempt: u32,
    pub max_attempts: u32,
    pub priority: i32,
    pub revision: i32,
    pub run_at_us: i64,
    pub created_at_us: i64,
    pub updated_at_us: i64,
    /// JSON text.
    pub payload: &'a str,
    pub queue: Option<&'a str>,
    pub key: Option<&'a str>,
    pub last_error: Option<&'a str>,
    /// JSON text.
    pub flags: Option<&'a str>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The task succeeded.
    Done,
    /// The task failed; the message is for `last_error`.
    Failed { kind: FailureKind, message: String },
    /// The job never reached the task's code, so it may go back unharmed.
    NotStarted,
}

/// Why a job failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The task returned an error.
    Error,
    /// The task returned an error which says that trying again is pointless.
    Discard,
    /// The task panicked.
    Panic,
    /// The task ran longer than it may.
    Timeout,
    /// The job was cancelled, and the task did not end by itself.
    Cancelled,
    /// The plugin's process ended under the job.
    Crash,
}

/// Whether a generation can take jobs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It takes jobs.
    Serving,
    /// Its process crashed and is being started again.
    Restarting,
    /// Its process crashed too often: it takes no jobs until another build replaces it.
    Quarantined { reason: String },
    /// It was retired.
    Stopped,
}

/// Why a build was refused. The message says what is wrong and what to do, without the file's name.
#[derive(Debug, Error)]
pub enum LaunchError {
    #[error("not written yet")]
    NotWrittenYet,
}

/// One build of a plugin that has been loaded and started.
#[derive(Debug)]
pub struct Generation {
    image: Arc<Image>,
    tasks: Vec<TaskSpec>,
    availability: watch::Sender<Availability>,
}

impl Generation {
    /// Loads and starts a build: its tasks are known and its start-up has succeeded when this returns.
    pub async fn launch(
        _image: Arc<Image>,
        _settings: &PluginSettings,
        _services: &HostServices,
    ) -> Result<Arc<Generation>, LaunchError> {
        Err(LaunchError::NotWrittenYet)
    }

    /// The plugin's name, from its file's name.
    pub fn plugin(&self) -> &str {
        &self.image.plugin
    }

    /// Which build this is.
    pub fn build(&self) -> BuildId {
        self.image.build
    }

    /// Its tasks; their indexes are those that [`Generation::run`] takes.
    pub fn tasks(&self) -> &[TaskSpec] {
        &self.tasks
    }

    /// Follows whether it takes jobs.
    pub fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.subscribe()
    }

    /// How many jobs run on it now.
    pub fn in_flight(&self) -> usize {
        0
    }

    /// Runs one job to its end. The limit of the task, or else the plugin's, cancels it; so does `cancel`.
    pub async fn run(&self, _task: u32, _job: &JobInput<'_>, _cancel: &CancellationToken) -> Outcome {
        Outcome::NotStarted
    }

    /// Takes no more jobs, waits for those that run, then shuts the plugin down.
    pub async fn retire(&self) {}

    /// Ends it at once: what still runs is failed as cancelled.
    pub async fn kill(&self) {}
}
