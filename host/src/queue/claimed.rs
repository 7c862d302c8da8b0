//! What a result refers to: one claim of a job. A word that comes late, after the job was taken away and claimed again, by
//! whomever, changes nothing.

use std::time::SystemTime;

use tokio_postgres::types::{ToSql, Type};

use super::Job;

/// A job as it was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimedJob {
    pub id: i64,
    /// The attempt that the claim began.
    pub attempt: i16,
    /// It had a key when it was claimed.
    pub keyed: bool,
    pub job_queue_id: Option<i32>,
    /// When it was marked, by the database's clock, if that is known.
    pub locked_at: Option<SystemTime>,
}

impl ClaimedJob {
    /// The claim that brought this.
    pub fn of(job: &Job) -> Self {
        Self {
            id: job.id,
            attempt: job.attempts,
            keyed: job.key.is_some(),
            job_queue_id: job.job_queue_id,
            locked_at: job.locked_at,
        }
    }

    /// The same of a job that turned out to be somebody else's: no row is as this claim left it.
    pub(crate) fn of_nobody(self) -> Self {
        Self { attempt: -1, keyed: false, ..self }
    }
}

/// Whether the row `job` is as the claim in `claimed` by $1 left it. Whoever takes a running job's key, by adding another one
/// or by removing it, sets its attempts to the most that it may have, so that it is not tried again.
pub(super) const STILL_CLAIMED: &str = "job.id = claimed.id
      and job.locked_by = $1
      and (job.attempts = claimed.attempt
        or (claimed.keyed and job.key is null and job.attempts = job.max_attempts))";

/// Claims column by column, as statements take them: ids, attempts, whether they had a key.
#[derive(Debug)]
pub(super) struct Claims {
    ids: Vec<i64>,
    attempts: Vec<i16>,
    keyed: Vec<bool>,
    pub(super) with_queues: bool,
}

impl Claims {
    pub(super) fn of<'a>(jobs: impl Iterator<Item = &'a ClaimedJob> + Clone) -> Self {
        Self {
            ids: jobs.clone().map(|job| job.id).collect(),
            attempts: jobs.clone().map(|job| job.attempt).collect(),
            keyed: jobs.clone().map(|job| job.keyed).collect(),
            with_queues: { jobs }.any(|job| job.job_queue_id.is_some()),
        }
    }

    pub(super) fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 3] {
        [(&self.ids, Type::INT8_ARRAY), (&self.attempts, Type::INT2_ARRAY), (&self.keyed, Type::BOOL_ARRAY)]
    }
}
