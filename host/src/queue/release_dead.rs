//! The takeover: finds owners that have something locked and show no liveness lock, and releases their jobs and queues.

use std::{sync::LazyLock, time::Duration};

use tokio_postgres::types::{ToSql, Type};

use super::{QueueError, Session, crash_record::WITH_HOST_ENDED};

/// Completes "could not …".
pub(super) const RELEASING: &str = "release the jobs of hosts that have died";

/// Who has something locked and shows its life otherwise.
const OWNERS: &str = "select locked_by as name
from @schema@._private_jobs
where locked_at is not null and locked_by like @live_owners@
union
select locked_by
from @schema@._private_job_queues
where locked_at is not null and locked_by like @live_owners@";

/// Of such an owner: nobody holds, or waits for, the lock by which it shows its life.
const IS_UNSEEN: &str = "not exists (
  select
  from pg_catalog.pg_locks as held
  where held.locktype = 'advisory'
    and held.classid = @liveness_lock@
    and held.objid = (pg_catalog.hashtext(owner.name)::int8 & 4294967295)::oid
    and held.objsubid = 2
    and held.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
)";

fn of_owners(text: &str) -> String {
    text.replace("@owners@", OWNERS).replace("@unseen@", IS_UNSEEN)
}

/// The second keys of owners that have something locked and whose locks nobody holds. And since when the server has been up, or has
/// recovered from a crash: then it forgets its statistics.
static UNSEEN: LazyLock<String> = LazyLock::new(|| of_owners(UNSEEN_TEXT));

const UNSEEN_TEXT: &str = "
select distinct
  pg_catalog.hashtext(owner.name)::int8 & 4294967295,
  extract(epoch from clock_timestamp() - greatest(
    pg_catalog.pg_postmaster_start_time(),
    pg_catalog.pg_stat_get_bgwriter_stat_reset_time()
  ))::float8
from (
  @owners@
) as owner
where @unseen@";

/// $1 the owner who does this, and must live on this server, $2 second keys of those that are dead.
///
/// The jobs keep their place, and the attempt counts: a job that ends its host must come to an end itself. Everybody is told of them.
/// Rows that somebody else has locked are left for later, for that may take long.
static RELEASE: LazyLock<String> = LazyLock::new(|| of_owners(RELEASE_TEXT).replace("@flags@", WITH_HOST_ENDED));

const RELEASE_TEXT: &str = "
with
  owner as materialized (
    @owners@
  ),
  silent as materialized (
    select name
    from owner
    where pg_catalog.hashtext(name)::int8 & 4294967295 = any ($2)
      and exists (
        select
        from pg_catalog.pg_locks as held
        where held.locktype = 'advisory'
          and held.classid = @liveness_lock@
          and held.objid = (pg_catalog.hashtext($1)::int8 & 4294967295)::oid
          and held.objsubid = 2
          and held.granted
          and held.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
      )
      and @unseen@
  ),
  dead as materialized (
    select name
    from silent
    where pg_catalog.pg_try_advisory_xact_lock(@liveness_lock@, pg_catalog.hashtext(name))
  ),
  job_held as materialized (
    select job.id, dead.name
    from dead join @schema@._private_jobs as job on job.locked_by = dead.name
    where $3::int8[] is null or job.id = any ($3)
  ),
  job_free as materialized (
    select job.id, held.name
    from job_held as held join @schema@._private_jobs as job on job.id = held.id and job.locked_by = held.name
    for update of job skip locked
  ),
  queue_held as materialized (
    select queue.id, dead.name
    from dead join @schema@._private_job_queues as queue on queue.locked_by = dead.name
  ),
  queue_free as materialized (
    select queue.id, held.name
    from queue_held as held join @schema@._private_job_queues as queue on queue.id = held.id and queue.locked_by = held.name
    for update of queue skip locked
  ),
  released as (
    update @schema@._private_jobs as job
    set
      last_error = pg_catalog.format('the host %s ended without a word while it had this job', job_free.name),
      flags = @flags@,
      locked_by = null,
      locked_at = null
    from job_free
    where job.id = job_free.id
    returning job.id
  ),
  freed as (
    update @schema@._private_job_queues as queue
    set locked_by = null, locked_at = null
    from queue_free
    where queue.id = queue_free.id
    returning queue.id
  ),
  told as (
    select pg_catalog.pg_notify('jobs:insert', pg_catalog.format('{\"r\":%s,\"count\":%s}', random(), counted.jobs))
    from (select count(*) as jobs from released) as counted
    where counted.jobs > 0
  )
select
  (
    select coalesce(array_agg(distinct name), '{}')
    from (select name from job_free union all select name from queue_free) as free
  ),
  (select count(*) from released),
  (select count(*) from freed),
  (select count(*) from job_held) + (select count(*) from queue_held)
    > (select count(*) from job_free) + (select count(*) from queue_free),
  (select count(*) from told)";

/// What was released, and of whom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Released {
    pub owners: Vec<String>,
    pub jobs: i64,
    pub queues: i64,
    /// Something was left because somebody else had its row locked.
    pub has_skipped: bool,
    /// Jobs that stay locked because the database refuses to release them, and what it says.
    pub refused: Vec<(i64, String)>,
}

/// Owners that have something locked, and no lock of their own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unseen {
    /// A number for each of them.
    pub owners: Vec<i64>,
    /// How long ago the server was started, or recovered from a crash.
    pub since_recovery: Option<Duration>,
}

impl Session {
    /// Looks for owners that have something locked, and no lock of their own.
    pub async fn unseen_owners(&self) -> Result<Unseen, QueueError> {
        const WHAT: &str = "look for hosts that have died";
        let rows = self.query(WHAT, &UNSEEN, &[]).await?;
        let failed = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let mut unseen = Unseen::default();
        for row in rows {
            unseen.owners.push(row.try_get(0).map_err(failed)?);
            unseen.since_recovery = Duration::try_from_secs_f64(row.try_get(1).map_err(failed)?).ok();
        }
        Ok(unseen)
    }

    /// Releases the jobs and queues of those owners with these `keys` that do not show life, if `ours` does. The jobs go elsewhere
    /// with one attempt less; those that had none left have failed.
    ///
    /// It is not tried again by itself: what is known of them is only true for a moment.
    pub async fn release_dead(&self, ours: &str, keys: &[i64]) -> Result<Released, QueueError> {
        match self.release(ours, keys, None).await {
            Err(error) if error.is_refusal() => self.release_around(ours, keys).await,
            whole => whole,
        }
    }

    pub(super) async fn release(&self, ours: &str, keys: &[i64], ids: Option<&[i64]>) -> Result<Released, QueueError> {
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&ours, Type::TEXT), (&keys, Type::INT8_ARRAY), (&ids, Type::INT8_ARRAY)];
        let rows = self.query_as_part(RELEASING, &RELEASE, &parameters).await?;
        let failed = |error: tokio_postgres::Error| QueueError::statement(RELEASING, &error);
        let Some(row) = rows.first() else { return Ok(Released::default()) };
        Ok(Released {
            owners: row.try_get(0).map_err(failed)?,
            jobs: row.try_get(1).map_err(failed)?,
            queues: row.try_get(2).map_err(failed)?,
            has_skipped: row.try_get(3).map_err(failed)?,
            refused: Vec::new(),
        })
    }
}
