//! The age of locks: those of jobs that run long are kept young, and those that nobody lifted in hours are taken away.
//!
//! Every graphile-worker does the second to the locks of all others, which is why this program does the first to its own.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{QueueError, Session};

/// A lock of this age is taken for one whose owner is gone. It is graphile-worker's number, and must be: two programs that
/// disagree would take jobs from each other.
pub const LOCK_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// What was found locked for longer than [`LOCK_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unlocked {
    pub jobs: u64,
    pub queues: u64,
}

/// The attempt stays counted. A job that had no other left would end without a word of why, so it gets one.
const RESET_JOBS: &str = "
update @schema@._private_jobs
set
  last_error = case
    when attempts < max_attempts then last_error
    else format('the worker %s, which ran the last attempt, did not come back within 4 hours', locked_by)
  end,
  run_at = greatest(run_at, now()),
  locked_by = null,
  locked_at = null
where locked_at < now() - interval '4 hours'";

const RESET_QUEUES: &str = "
update @schema@._private_job_queues
set locked_by = null, locked_at = null
where locked_at < now() - interval '4 hours'";

/// $1 owner, $2 the age in seconds from which a lock is renewed.
const REFRESH: &str = "
with queue as (
  update @schema@._private_job_queues
  set locked_at = now()
  where locked_by = $1
    and locked_at < now() - $2 * interval '1 second'
)
update @schema@._private_jobs
set locked_at = now()
where locked_by = $1
  and locked_at < now() - $2 * interval '1 second'";

impl Session {
    /// Takes the locks away that are older than [`LOCK_LIMIT`], whoever holds them.
    pub async fn reset_locked(&self) -> Result<Unlocked, QueueError> {
        const WHAT: &str = "release the locks of workers that are gone";
        // The jobs first: a queue that is free while its job is not would let the next one of it run.
        let jobs = self.execute(WHAT, RESET_JOBS, &[]).await?;
        let queues = self.execute(WHAT, RESET_QUEUES, &[]).await?;
        Ok(Unlocked { jobs, queues })
    }

    /// Renews the locks of `owner` that are at least `age` old, and says how many jobs that were.
    pub async fn refresh_locked(&self, owner: &str, age: Duration) -> Result<u64, QueueError> {
        const WHAT: &str = "renew the locks of running jobs";
        self.execute(WHAT, REFRESH, &[(&owner, Type::TEXT), (&age.as_secs_f64(), Type::FLOAT8)]).await
    }
}
