//! Gives claimed jobs back that were not started: the attempt does not count.

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{ClaimedJob, QueueError, ReleasedJob, Session, claimed::Claims};

const WHAT: &str = "give jobs back";

/// $1 owner, $2 to $5 the claims. `run_at` stays, so that the jobs stand where they stood.
///
/// Whose key was taken meanwhile goes as it would have gone had nobody had it: graphile-worker would run it, beside the one that it
/// was replaced by.
macro_rules! given_back {
    () => {
        "
with
  claimed as (
    select * from unnest($2, $3, $4, $5) as claim (id, attempt, keyed, locked_at)
  ),
  gone as (
    delete from @schema@._private_jobs as job
    using claimed
    where @still_claimed@
      and claimed.keyed and job.key is null
    returning job.id, job.job_queue_id, job.priority, job.run_at
  ),
  given_back as (
    update @schema@._private_jobs as job
    set attempts = greatest(0, job.attempts - 1), locked_by = null, locked_at = null
    from claimed
    where @still_claimed@
      and not (claimed.keyed and job.key is null)
    returning job.id, job.job_queue_id, job.priority, job.run_at
  ),
  settled as (
    select * from gone
    union all
    select * from given_back
  )"
    };
}

const WITHOUT_QUEUES: &str = concat!(given_back!(), "\nselect * from settled");

/// As above, and the queues.
const WITH_QUEUES: &str = concat!(
    given_back!(),
    ",
  freed as (
    update @schema@._private_job_queues as queue
    set locked_by = null, locked_at = null
    from settled
    where queue.id = settled.job_queue_id
      and queue.locked_by = $1
  )
select * from settled"
);

/// $1 owner.
const LOCKED_BY: &str = "
select id, attempts, key is not null, job_queue_id, locked_at
from @schema@._private_jobs
where locked_by = $1";

/// $1 owner, $2 queues that it needs. Whoever locks one of the others meanwhile does so at another time.
const FREE_QUEUES: &str = "
with idle as materialized (
  select queue.id, queue.locked_at
  from @schema@._private_job_queues as queue
  where queue.locked_by = $1
    and queue.id <> all ($2)
    and not exists (
      select
      from @schema@._private_jobs as job
      where job.job_queue_id = queue.id
        and job.locked_by = $1
    )
)
update @schema@._private_job_queues as queue
set locked_by = null, locked_at = null
from idle
where queue.id = idle.id
  and queue.locked_by = $1
  and queue.locked_at = idle.locked_at";

impl Session {
    /// Unlocks the queues that `owner` has locked, except those that are `needed` and those in which it has a job locked; says how
    /// many that were.
    pub async fn free_queues(&self, owner: &str, needed: &[i32]) -> Result<i64, QueueError> {
        const WHAT: &str = "free the queues of jobs that are gone";
        let freed = self.execute(WHAT, FREE_QUEUES, &[(&owner, Type::TEXT), (&needed, Type::INT4_ARRAY)]).await?;
        Ok(i64::try_from(freed).unwrap_or(i64::MAX))
    }

    /// All jobs that `owner` has locked, as it would have claimed them.
    pub async fn locked_by(&self, owner: &str) -> Result<Vec<ClaimedJob>, QueueError> {
        const WHAT: &str = "see which jobs are locked";
        let rows = self.query(WHAT, LOCKED_BY, &[(&owner, Type::TEXT)]).await?;
        let read = |row: &Row| {
            Ok(ClaimedJob {
                id: row.try_get(0)?,
                attempt: row.try_get(1)?,
                keyed: row.try_get(2)?,
                job_queue_id: row.try_get(3)?,
                locked_at: row.try_get(4)?,
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| QueueError::statement(WHAT, &error))
    }

    /// Unlocks those of the jobs that `owner` still holds by these claims, and their queues; returns the ids of these jobs.
    ///
    /// Nobody is notified of it: other workers find the jobs when they next look. Claims through this database know of it.
    pub async fn return_jobs(&self, owner: &str, jobs: &[ClaimedJob]) -> Result<Vec<i64>, QueueError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let claims = Claims::of(jobs.iter());
        let sql = if claims.with_queues { WITH_QUEUES } else { WITHOUT_QUEUES };
        let [ids, attempts, keyed, locked_at] = claims.parameters();
        let parameters = [(&owner as &(dyn ToSql + Sync), Type::TEXT), ids, attempts, keyed, locked_at];
        let rows = self.query(WHAT, sql, &parameters).await?;
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let released = |row: &Row| {
            Ok(ReleasedJob {
                id: row.try_get(0)?,
                queue: row.try_get(1)?,
                priority: row.try_get(2)?,
                run_at: row.try_get(3)?,
            })
        };
        let returned = rows.iter().map(released).collect::<Result<Vec<_>, _>>().map_err(read)?;
        self.database().released(&returned);
        Ok(returned.into_iter().map(|job| job.id).collect())
    }
}
