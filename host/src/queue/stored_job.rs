//! A job as an administrator sees it: with the names that its ids stand for, who holds it, and what state it is in.

use std::{fmt, str::FromStr, time::SystemTime};

use tokio_postgres::Row;

use super::{
    QueueError,
    text::{text, text_or_null},
};

/// A job with the columns of the view `jobs`, its payload and its state.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredJob {
    pub id: i64,
    pub queue_name: Option<String>,
    /// Empty if the row with the task's name was deleted.
    pub task_identifier: String,
    /// JSON text, as it is stored. Here as in the other texts, bytes that are not UTF-8 are written as escapes such as `\xe9`.
    pub payload: String,
    pub priority: i16,
    pub run_at: SystemTime,
    /// How often it was started.
    pub attempts: i16,
    pub max_attempts: i16,
    pub last_error: Option<String>,
    pub created_at: SystemTime,
    pub updated_at: SystemTime,
    pub key: Option<String>,
    pub locked_at: Option<SystemTime>,
    pub locked_by: Option<String>,
    pub revision: i32,
    /// JSON text: an object in which each flag is `true`.
    pub flags: Option<String>,
    /// By the database's clock.
    pub state: JobState,
}

/// What a job is waiting for, if anything. Each job is in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobState {
    /// It may run now.
    Ready,
    /// Its time has not come.
    Scheduled,
    /// A worker holds it.
    Running,
    /// It was tried before, and is tried again when its time has come.
    Retrying,
    /// It was tried as often as it may be.
    Failed,
}

impl JobState {
    /// All of them, in the order of a job's life.
    pub const ALL: [Self; 5] = [Self::Scheduled, Self::Ready, Self::Running, Self::Retrying, Self::Failed];

    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for JobState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| "it must be ready, scheduled, running, retrying or failed".to_owned())
    }
}

/// The state of the row `job`, as [`JobState::as_str`] has it.
macro_rules! state_sql {
    () => {
        "case
    when job.locked_at is not null then 'running'
    when job.attempts >= job.max_attempts then 'failed'
    when job.attempts > 0 then 'retrying'
    when job.run_at > now() then 'scheduled'
    else 'ready'
  end"
    };
}

/// What [`StoredJob::from_row`] reads, of the rows `job`, `task` and `queue`.
macro_rules! stored_job_sql {
    () => {
        concat!(
            "
  job.id, queue.queue_name, coalesce(task.identifier, ''), job.payload::text, job.priority, job.run_at, job.attempts,
  job.max_attempts, job.last_error, job.created_at, job.updated_at, job.key, job.locked_at, job.locked_by, job.revision,
  job.flags::text,
  ",
            $crate::queue::stored_job::state_sql!()
        )
    };
}

/// The rows with the names for a row `job`.
macro_rules! names_sql {
    () => {
        "
left join @schema@._private_tasks as task on task.id = job.task_id
left join @schema@._private_job_queues as queue on queue.id = job.job_queue_id"
    };
}

pub(super) use {names_sql, state_sql, stored_job_sql};

impl StoredJob {
    pub(super) fn from_rows(what: &'static str, rows: &[Row]) -> Result<Vec<Self>, QueueError> {
        rows.iter().map(|row| Self::from_row(row).map_err(|error| QueueError::statement(what, &error))).collect()
    }

    pub(super) fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get(0)?,
            queue_name: text_or_null(row, 1)?,
            task_identifier: text(row, 2)?,
            payload: text(row, 3)?,
            priority: row.try_get(4)?,
            run_at: row.try_get(5)?,
            attempts: row.try_get(6)?,
            max_attempts: row.try_get(7)?,
            last_error: text_or_null(row, 8)?,
            created_at: row.try_get(9)?,
            updated_at: row.try_get(10)?,
            key: text_or_null(row, 11)?,
            locked_at: row.try_get(12)?,
            locked_by: text_or_null(row, 13)?,
            revision: row.try_get(14)?,
            flags: text_or_null(row, 15)?,
            state: row.try_get::<_, &str>(16)?.parse().unwrap_or(JobState::Ready),
        })
    }
}
