//! What a result refers to: one claim of a job. A word that comes late, after the job was taken away and claimed again, by
//! whomever, changes nothing.

use std::time::{Duration, SystemTime};

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

    /// Whether it is the claim that locked a job at `time`, as [`STILL_CLAIMED`] tells.
    pub(crate) fn locked(&self, time: Option<SystemTime>) -> bool {
        let Some((since, time)) = self.locked_at.zip(time) else { return true };
        time.duration_since(since).is_ok_and(|later| later.as_micros() % RENEWED_BY.as_micros() == 0)
    }

    /// The same of a job that turned out to be somebody else's: no row is as this claim left it.
    pub(crate) fn of_nobody(self) -> Self {
        Self { attempt: -1, keyed: false, ..self }
    }
}

/// Whether the row `job` is as the claim in `claimed` by $1 left it.
///
/// Whoever takes a running job's key, by adding another one or by removing it, sets its attempts to the most that it may have, so
/// that it is not tried again.
///
/// The time of the lock tells two claims apart that have all else in common. After a return, the next claim begins the same
/// attempt; and after a failover to a server that had not heard of everything, a row may be unclaimed again, or its id belong to
/// another job. A renewal moves the time by whole minutes, so that what is left of it still names the claim.
pub(super) const STILL_CLAIMED: &str = "job.id = claimed.id
      and job.locked_by = $1
      and (job.attempts = claimed.attempt
        or (claimed.keyed and job.key is null and job.attempts = job.max_attempts))
      and (job.locked_at = claimed.locked_at
        or claimed.locked_at is null
        or (job.locked_at > claimed.locked_at
          and pg_catalog.date_trunc('minute', job.locked_at - claimed.locked_at) = job.locked_at - claimed.locked_at))";

/// A renewal moves a lock's time by a multiple of this.
pub(super) const RENEWED_BY: Duration = Duration::from_secs(60);

/// Claims column by column, as statements take them: ids, attempts, whether they had a key, when they locked the jobs.
#[derive(Debug)]
pub(super) struct Claims {
    ids: Vec<i64>,
    attempts: Vec<i16>,
    keyed: Vec<bool>,
    locked_at: Vec<Option<SystemTime>>,
    pub(super) with_queues: bool,
}

impl Claims {
    pub(super) fn of<'a>(jobs: impl Iterator<Item = &'a ClaimedJob> + Clone) -> Self {
        Self {
            ids: jobs.clone().map(|job| job.id).collect(),
            attempts: jobs.clone().map(|job| job.attempt).collect(),
            keyed: jobs.clone().map(|job| job.keyed).collect(),
            locked_at: jobs.clone().map(|job| job.locked_at).collect(),
            with_queues: { jobs }.any(|job| job.job_queue_id.is_some()),
        }
    }

    pub(super) fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 4] {
        [
            (&self.ids, Type::INT8_ARRAY),
            (&self.attempts, Type::INT2_ARRAY),
            (&self.keyed, Type::BOOL_ARRAY),
            (&self.locked_at, Type::TIMESTAMPTZ_ARRAY),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_lock_is_that_of_the_same_claim() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_micros(1_234_567);
        let claim = ClaimedJob { id: 1, attempt: 1, keyed: false, job_queue_id: None, locked_at: Some(since) };
        let later = |by: Duration| claim.locked(Some(since + by));
        assert!(later(Duration::ZERO) && later(RENEWED_BY) && later(RENEWED_BY * 30) && claim.locked(None));
        assert!(!later(Duration::from_micros(1)) && !later(RENEWED_BY + Duration::from_secs(1)));
        assert!(!claim.locked(Some(since - RENEWED_BY)), "nobody makes a lock older");
    }
}
