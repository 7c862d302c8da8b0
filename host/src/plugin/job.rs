//! What goes into a task's code and what comes out of it.

use tokio_util::sync::CancellationToken;

use super::ItemResults;

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

/// How running jobs are brought to their end from outside.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    /// Tells the task, which may go on for as long as it needs.
    pub ask: CancellationToken,
    /// Ends the job: the task is told, then dropped, then its process killed.
    pub force: CancellationToken,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The task succeeded.
    Done,
    /// Each item of the payload ended in its own way.
    Items(ItemResults),
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
    /// The job was cancelled before it could succeed.
    Cancelled,
    /// The plugin's process ended under the job.
    Crash,
}
