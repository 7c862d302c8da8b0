//! One schedule: which job, and when.

use std::time::Duration;

/// A job that is added again and again.
#[derive(Debug, Clone)]
pub struct CronItem {
    /// The name of the task.
    pub task: String,
    /// The name under which the database remembers when it was last added: that of the task unless the line says `id=`.
    pub identifier: String,
    pub options: CronOptions,
    /// The payload, which the job gets with `_cron` added.
    pub payload: serde_json::Map<String, serde_json::Value>,
}

/// What a line says behind `?`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CronOptions {
    /// `fill`: how far back missed times are made up for at the start; zero: not at all.
    pub backfill: Duration,
    /// `max`: the attempts of the job.
    pub max_attempts: Option<u64>,
    /// `queue`
    pub queue_name: Option<String>,
    /// `priority`
    pub priority: Option<i64>,
    /// `jobKey`
    pub job_key: Option<String>,
    /// `jobKeyMode`
    pub job_key_mode: Option<KeyMode>,
    /// `tz`: the time zone that the fields are in, by its IANA name; UTC without.
    pub time_zone: Option<String>,
}

/// What happens to a job that waits under the key already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyMode {
    Replace,
    PreserveRunAt,
}
