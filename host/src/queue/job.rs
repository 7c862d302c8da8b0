//! A job as it is stored.

use std::time::SystemTime;

use tokio_postgres::Row;

use super::text::{Text, text_or_null};

/// A row of `_private_jobs`, with the name of its queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub id: i64,
    pub task_id: i32,
    pub job_queue_id: Option<i32>,
    pub queue_name: Option<String>,
    /// JSON text, as it is stored.
    pub payload: String,
    /// The payload is UTF-8. If not, bytes in `payload` are written as escapes, and it is not JSON.
    pub is_readable: bool,
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
    /// When the claim that brought it marked it, by the database's clock. `None` of the express lane.
    pub locked_at: Option<SystemTime>,
}

impl Job {
    /// How many columns [`Job::from_row`] reads.
    pub(super) const COLUMNS: usize = 15;

    /// Reads the columns that the statements here select, in this order: `id`, `task_id`, `job_queue_id`, the queue's
    /// name, then the rest as above. JSON is selected as text, so that it arrives byte for byte.
    pub(super) fn from_row(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let payload: Text = row.try_get(4)?;
        Ok(Self {
            id: row.try_get(0)?,
            task_id: row.try_get(1)?,
            job_queue_id: row.try_get(2)?,
            queue_name: text_or_null(row, 3)?,
            is_readable: payload.is_utf8,
            payload: payload.text,
            priority: row.try_get(5)?,
            run_at: row.try_get(6)?,
            attempts: row.try_get(7)?,
            max_attempts: row.try_get(8)?,
            last_error: text_or_null(row, 9)?,
            created_at: row.try_get(10)?,
            updated_at: row.try_get(11)?,
            key: text_or_null(row, 12)?,
            revision: row.try_get(13)?,
            flags: text_or_null(row, 14)?,
            locked_at: None,
        })
    }

    /// A job to test with.
    #[cfg(test)]
    pub(crate) fn sample(id: i64) -> Self {
        Self {
            id,
            task_id: 1,
            job_queue_id: None,
            queue_name: None,
            payload: "{}".to_owned(),
            is_readable: true,
            priority: 0,
            run_at: SystemTime::UNIX_EPOCH,
            attempts: 1,
            max_attempts: 25,
            last_error: None,
            created_at: SystemTime::UNIX_EPOCH,
            updated_at: SystemTime::UNIX_EPOCH,
            key: None,
            revision: 0,
            flags: None,
            locked_at: None,
        }
    }
}
