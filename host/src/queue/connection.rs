//! Connections to Postgres, and what can go wrong with them.

use std::time::SystemTime;

use thiserror::Error;

/// Which database, and which schema in it.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// How to connect.
    pub config: tokio_postgres::Config,
    /// The schema; `graphile_worker` unless set.
    pub schema: String,
    /// The most connections for general use; listening and the hot path have their own.
    pub max_pool_size: usize,
}

/// A statement that failed. The message says what was tried and why it failed.
#[derive(Debug, Error)]
pub enum QueueError {
    #[error("not written yet")]
    NotWrittenYet,
}

/// The database: gives sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {}

/// One connection with its prepared statements. The statements of `get_jobs.rs` and its neighbours are its methods.
#[derive(Debug)]
pub struct Session {}

/// A row of `_private_jobs`, with the name of its queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub id: i64,
    pub task_id: i32,
    pub job_queue_id: Option<i32>,
    pub queue_name: Option<String>,
    /// JSON text, as it is stored.
    pub payload: String,
    pub priority: i16,
    pub run_at: SystemTime,
    /// Counts the attempt under way.
    pub attempts: i16,
    pub max_attempts: i16,
    pub last_error: Option<String>,
    pub created_at: SystemTime,
    pub updated_at: SystemTime,
    pub key: Option<String>,
    pub revision: i32,
    /// JSON text.
    pub flags: Option<String>,
}
