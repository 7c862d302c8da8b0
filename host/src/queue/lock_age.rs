//! The age of locks: those of jobs that run long are kept young, and those that nobody lifted in hours are taken away.
//!
//! Every graphile-worker does the second to the locks of all others, which is why this program does the first to its own.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Bisection, QueueError, Session, liveness::living};

/// A lock of this age is taken for one whose owner is gone, unless that shows that it lives. It is graphile-worker's number, and
/// must be: two programs that disagree would take jobs from each other.
pub const LOCK_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// What was found locked for longer than [`LOCK_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unlocked {
    pub jobs: i64,
    pub queues: i64,
}

/// $1 ids of jobs, null for all. Owners that show that they live keep theirs: if one of those looks so old, then the clock was set. The attempt stays counted. A
/// job that had no other left would end without a word of why, so it gets one.
const RESET: &str = concat!(
    "
with
  ",
    living!(),
    ",
  jobs as (
    update @schema@._private_jobs
    set
      last_error = case
        when attempts < max_attempts then last_error
        else format('the worker %s, which ran the last attempt, did not come back within 4 hours', locked_by)
      end,
      run_at = greatest(run_at, now()),
      locked_by = null,
      locked_at = null
    where locked_at < now() - interval '4 hours'
      and ($1::int8[] is null or id = any ($1))
      and (
        locked_by like @live_owners@
        and (pg_catalog.hashtext(locked_by)::int8 & 4294967295)::oid in (select key from living)
      ) is not true
    returning id
  ),
  queues as (
    update @schema@._private_job_queues
    set locked_by = null, locked_at = null
    where locked_at < now() - interval '4 hours'
      and (
        locked_by like @live_owners@
        and (pg_catalog.hashtext(locked_by)::int8 & 4294967295)::oid in (select key from living)
      ) is not true
    returning id
  )
select (select count(*) from jobs), (select count(*) from queues)"
);

/// The jobs that may be among them.
const OLD: &str = "select id from @schema@._private_jobs where locked_at < now() - interval '4 hours'";

/// $1 owner, $2 the age in seconds from which a lock is renewed, $3 ids of jobs, null for all. The time of a job's lock names its
/// claim: it moves by whole minutes, see `STILL_CLAIMED`.
const REFRESH: &str = "
with queue as (
  update @schema@._private_job_queues
  set locked_at = now()
  where locked_by = $1
    and locked_at < now() - $2 * interval '1 second'
)
update @schema@._private_jobs
set locked_at = locked_at + floor(extract(epoch from now() - locked_at) / 60) * interval '1 minute'
where locked_by = $1
  and locked_at < now() - $2 * interval '1 second'
  and ($3::int8[] is null or id = any ($3))";

/// Jobs that the database refused to change, and what it said.
pub(crate) type RefusedJobs = Vec<(i64, QueueError)>;

impl Session {
    /// Takes the locks away that are older than [`LOCK_LIMIT`], except of those who show that they live.
    pub async fn reset_locked(&self) -> Result<Unlocked, QueueError> {
        self.reset_locked_around().await.map(|(unlocked, _)| unlocked)
    }

    /// The same, and the jobs that keep their locks because the database refuses it.
    pub(crate) async fn reset_locked_around(&self) -> Result<(Unlocked, RefusedJobs), QueueError> {
        match self.reset(None).await {
            Err(error) if error.is_refusal() => {}
            whole => return Ok((whole?, Vec::new())),
        }
        let rows = self.query(RESETTING, OLD, &[]).await?;
        let read = |error: tokio_postgres::Error| QueueError::statement(RESETTING, &error);
        let ids: Vec<i64> = rows.iter().map(|row| row.try_get(0).map_err(read)).collect::<Result<_, _>>()?;
        let mut unlocked = Unlocked::default();
        let mut parts = Bisection::new(ids.len(), usize::MAX);
        while let Some(part) = parts.next() {
            let ran = async {
                let more = self.reset(Some(&ids[part.clone()])).await?;
                unlocked = Unlocked { jobs: unlocked.jobs + more.jobs, queues: unlocked.queues + more.queues };
                Ok(())
            };
            parts.ran(part.clone(), ran.await)?;
        }
        let apart = parts.end();
        let refused = apart.refused_of(&ids).collect();
        Ok((unlocked, refused))
    }

    async fn reset(&self, ids: Option<&[i64]>) -> Result<Unlocked, QueueError> {
        let failed = |error: tokio_postgres::Error| QueueError::statement(RESETTING, &error);
        let rows = self.query(RESETTING, RESET, &[(&ids, Type::INT8_ARRAY)]).await?;
        let Some(row) = rows.first() else { return Ok(Unlocked::default()) };
        Ok(Unlocked { jobs: row.try_get(0).map_err(failed)?, queues: row.try_get(1).map_err(failed)? })
    }

    /// Renews the locks of `owner` that are at least `age` old, and says how many jobs that were.
    pub async fn refresh_locked(&self, owner: &str, age: Duration) -> Result<u64, QueueError> {
        self.refresh_locked_around(owner, age).await.map(|(renewed, _)| renewed)
    }

    /// The same, and the jobs whose locks grow older because the database refuses it.
    pub(crate) async fn refresh_locked_around(
        &self,
        owner: &str,
        age: Duration,
    ) -> Result<(u64, RefusedJobs), QueueError> {
        match self.refresh(owner, age, None).await {
            Err(error) if error.is_refusal() => {}
            whole => return Ok((whole?, Vec::new())),
        }
        let ids: Vec<i64> = self.locked_by(owner).await?.iter().map(|job| job.id).collect();
        let mut renewed = 0;
        let mut parts = Bisection::new(ids.len(), usize::MAX);
        while let Some(part) = parts.next() {
            let ran = async {
                renewed += self.refresh(owner, age, Some(&ids[part.clone()])).await?;
                Ok(())
            };
            parts.ran(part.clone(), ran.await)?;
        }
        let apart = parts.end();
        let refused = apart.refused_of(&ids).collect();
        Ok((renewed, refused))
    }

    async fn refresh(&self, owner: &str, age: Duration, ids: Option<&[i64]>) -> Result<u64, QueueError> {
        const WHAT: &str = "renew the locks of running jobs";
        let age = age.as_secs_f64();
        self.execute(WHAT, REFRESH, &[(&owner, Type::TEXT), (&age, Type::FLOAT8), (&ids, Type::INT8_ARRAY)]).await
    }
}

const RESETTING: &str = "release the locks of workers that are gone";
