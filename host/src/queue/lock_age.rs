//! The age of locks: those of jobs that run long are kept young, and those that nobody lifted in hours are taken away.
//!
//! Every graphile-worker does the second to the locks of all others, which is why this program does the first to its own.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{QueueError, Session};

/// A lock of this age is taken for one whose owner is gone, unless that shows that it lives. It is graphile-worker's number, and
/// must be: two programs that disagree would take jobs from each other.
pub const LOCK_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// What was found locked for longer than [`LOCK_LIMIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unlocked {
    pub jobs: i64,
    pub queues: i64,
}

/// Owners that show that they live keep theirs: if one of those looks so old, then the clock was set. The attempt stays counted. A
/// job that had no other left would end without a word of why, so it gets one.
const RESET: &str = "
with
  living as materialized (
    select held.objid as key
    from pg_catalog.pg_locks as held
    where held.locktype = 'advisory'
      and held.classid = 1952543595
      and held.objsubid = 2
      and held.granted
      and held.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
  ),
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
      and (
        locked_by like 'taskbay-live-%'
        and (pg_catalog.hashtext(locked_by)::int8 & 4294967295)::oid in (select key from living)
      ) is not true
    returning id
  ),
  queues as (
    update @schema@._private_job_queues
    set locked_by = null, locked_at = null
    where locked_at < now() - interval '4 hours'
      and (
        locked_by like 'taskbay-live-%'
        and (pg_catalog.hashtext(locked_by)::int8 & 4294967295)::oid in (select key from living)
      ) is not true
    returning id
  )
select (select count(*) from jobs), (select count(*) from queues)";

/// $1 owner, $2 the age in seconds from which a lock is renewed. The time of a job's lock names its claim: it moves by whole
/// minutes, see `STILL_CLAIMED`.
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
  and locked_at < now() - $2 * interval '1 second'";

impl Session {
    /// Takes the locks away that are older than [`LOCK_LIMIT`], except of those who show that they live.
    pub async fn reset_locked(&self) -> Result<Unlocked, QueueError> {
        const WHAT: &str = "release the locks of workers that are gone";
        let failed = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let rows = self.query(WHAT, RESET, &[]).await?;
        let Some(row) = rows.first() else { return Ok(Unlocked::default()) };
        Ok(Unlocked { jobs: row.try_get(0).map_err(failed)?, queues: row.try_get(1).map_err(failed)? })
    }

    /// Renews the locks of `owner` that are at least `age` old, and says how many jobs that were.
    pub async fn refresh_locked(&self, owner: &str, age: Duration) -> Result<u64, QueueError> {
        const WHAT: &str = "renew the locks of running jobs";
        self.execute(WHAT, REFRESH, &[(&owner, Type::TEXT), (&age.as_secs_f64(), Type::FLOAT8)]).await
    }
}
