//! Gives claimed jobs back that were not started: the attempt does not count.

use tokio_postgres::{Row, types::Type};

use super::{QueueError, Session};

const WHAT: &str = "give jobs back";

/// A job that was claimed and not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReturnedJob {
    pub id: i64,
    pub job_queue_id: Option<i32>,
}

/// $1 owner, $2 ids. `run_at` stays, so that the jobs stand where they stood.
const WITHOUT_QUEUES: &str = "
update @schema@._private_jobs as job
set attempts = greatest(0, job.attempts - 1), locked_by = null, locked_at = null
from unnest($2) as returned (id)
where job.id = returned.id
  and job.locked_by = $1
returning job.id, job.job_queue_id, job.priority, job.run_at";

/// As above, and the queues.
const WITH_QUEUES: &str = "
with
  given_back as (
    update @schema@._private_jobs as job
    set attempts = greatest(0, job.attempts - 1), locked_by = null, locked_at = null
    from unnest($2) as returned (id)
    where job.id = returned.id
      and job.locked_by = $1
    returning job.id, job.job_queue_id, job.priority, job.run_at
  ),
  freed as (
    update @schema@._private_job_queues as queue
    set locked_by = null, locked_at = null
    from given_back
    where queue.id = given_back.job_queue_id
      and queue.locked_by = $1
  )
select id, job_queue_id, priority, run_at from given_back";

impl Session {
    /// Unlocks those of the jobs that `owner` still holds, and their queues; returns the ids of these jobs.
    ///
    /// Nobody is notified of it: other workers find the jobs when they next look. Claims through this database know of it.
    pub async fn return_jobs(&self, owner: &str, jobs: &[ReturnedJob]) -> Result<Vec<i64>, QueueError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let sql = if jobs.iter().any(|job| job.job_queue_id.is_some()) { WITH_QUEUES } else { WITHOUT_QUEUES };
        let ids: Vec<i64> = jobs.iter().map(|job| job.id).collect();
        let rows = self.query(WHAT, sql, &[(&owner, Type::TEXT), (&ids, Type::INT8_ARRAY)]).await?;
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let place = |row: &Row| Ok((row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
        let places = rows.iter().map(place).collect::<Result<Vec<_>, _>>().map_err(read)?;
        self.database().came_back(&places);
        rows.iter().map(|row| row.try_get(0).map_err(read)).collect()
    }
}
