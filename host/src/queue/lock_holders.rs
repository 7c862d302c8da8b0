//! Who holds jobs and queues.

use std::time::SystemTime;

use tokio_postgres::types::{ToSql, Type};

use super::{
    QueueError, Session,
    count_jobs::{per_cent, scaled},
    liveness::living,
    text::text,
};

/// A worker that holds locks, or lives without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// What `locked_by` says.
    pub worker: String,
    pub jobs: i64,
    pub queues: i64,
    /// Its oldest lock.
    pub since: SystemTime,
    /// Whether it shows that it lives; `None` for workers that show nothing, as those of graphile-worker.
    pub lives: Option<bool>,
}

/// Who holds locks.
#[derive(Debug, Clone, PartialEq)]
pub struct LockHolders {
    /// The one with the oldest lock first.
    pub holders: Vec<LockHolder>,
    /// What part of the table of jobs was read; `None` if all of it was, so that nobody is missing.
    pub sampled: Option<f64>,
}

/// No index knows which jobs are locked. `$sample` follows the table of jobs.
macro_rules! lock_holders_sql {
    ($sample:literal) => {
        concat!(
            "
with
  ",
            living!(),
            ",
  holder as (
    select
      locked_by as name,
      count(*) filter (where is_job) as jobs,
      count(*) filter (where not is_job) as queues,
      min(locked_at) as since
    from (
      select locked_by, locked_at, true as is_job
      from @schema@._private_jobs",
            $sample,
            "
      where locked_at is not null
      union all
      select locked_by, locked_at, false from @schema@._private_job_queues where locked_at is not null
    ) as lock
    where locked_by is not null
    group by locked_by
  )
select
  name, jobs, queues, since,
  case when name like @live_owners@
    then (pg_catalog.hashtext(name)::int8 & 4294967295)::oid in (select key from living)
  end
from holder
order by since"
        )
    };
}

/// $1 owners. Those of them that show that they live; see `liveness`.
const LIVING: &str = "
select distinct owner.name
from unnest($1) as owner (name)
join pg_catalog.pg_locks as held on held.objid = (pg_catalog.hashtext(owner.name)::int8 & 4294967295)::oid
where owner.name like @live_owners@
  and held.locktype = 'advisory'
  and held.classid = @liveness_lock@
  and held.objsubid = 2
  and held.granted
  and held.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())";

const LOCK_HOLDERS: &str = lock_holders_sql!("");

/// $1 how many per cent of the pages.
const LOCK_HOLDERS_IN_SAMPLE: &str = lock_holders_sql!(" tablesample system ($1)");

impl Session {
    /// Who holds locks on jobs or queues, the one with the oldest lock first. Reads each job.
    pub async fn lock_holders(&self) -> Result<Vec<LockHolder>, QueueError> {
        self.find_lock_holders(None).await
    }

    /// The same, but of a large table of jobs no more than a sample is read: numbers of jobs are estimated, and a worker with few
    /// jobs and no queue may be missing.
    pub async fn estimate_lock_holders(&self) -> Result<LockHolders, QueueError> {
        let sampled = self.sample_of_jobs().await?;
        let mut holders = self.find_lock_holders(sampled).await?;
        if let Some(part) = sampled {
            holders.iter_mut().for_each(|holder| holder.jobs = scaled(holder.jobs, part));
        }
        Ok(LockHolders { holders, sampled })
    }

    /// Those of the owners that show that they live. The others may live too, unless they are hosts with a liveness lock.
    pub async fn living_owners(&self, owners: &[&str]) -> Result<Vec<String>, QueueError> {
        const WHAT: &str = "look which workers are alive";
        let rows = self.query(WHAT, LIVING, &[(&owners, Type::TEXT_ARRAY)]).await?;
        rows.iter()
            .map(|row| text(row, 0))
            .collect::<Result<_, _>>()
            .map_err(|error| QueueError::statement(WHAT, &error))
    }

    async fn find_lock_holders(&self, part: Option<f64>) -> Result<Vec<LockHolder>, QueueError> {
        const WHAT: &str = "look at the locks";
        let percent = part.map(per_cent);
        let rows = match &percent {
            None => self.query(WHAT, LOCK_HOLDERS, &[]).await?,
            Some(percent) => {
                let percent: (&(dyn ToSql + Sync), Type) = (percent, Type::FLOAT4);
                self.query(WHAT, LOCK_HOLDERS_IN_SAMPLE, &[percent]).await?
            }
        };
        let holder = |row: &tokio_postgres::Row| {
            Ok(LockHolder {
                worker: text(row, 0)?,
                jobs: row.try_get(1)?,
                queues: row.try_get(2)?,
                since: row.try_get(3)?,
                lives: row.try_get(4)?,
            })
        };
        rows.iter().map(holder).collect::<Result<_, _>>().map_err(|error| QueueError::statement(WHAT, &error))
    }
}
