//! Completes jobs: deletes them, and frees their queues.

use tokio_postgres::types::Type;

use super::{QueueError, Session};

const WHAT: &str = "complete jobs";

/// A job that has been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompletedJob {
    pub id: i64,
    pub job_queue_id: Option<i32>,
}

/// $1 owner, $2 ids.
const WITHOUT_QUEUES: &str = "
delete from @schema@._private_jobs as job
using unnest($2) as completed (id)
where job.id = completed.id
  and job.locked_by = $1
returning job.id";

/// $1 owner, $2 ids. A job that is not ours any more says nothing of its queue either: only the queues of deleted jobs are
/// freed, and of these only ours.
const WITH_QUEUES: &str = "
with
  deleted as (
    delete from @schema@._private_jobs as job
    using unnest($2) as completed (id)
    where job.id = completed.id
      and job.locked_by = $1
    returning job.id, job.job_queue_id
  ),
  freed as (
    update @schema@._private_job_queues as queue
    set locked_by = null, locked_at = null
    from deleted
    where queue.id = deleted.job_queue_id
      and queue.locked_by = $1
  )
select id from deleted";

impl Session {
    /// Deletes those of the jobs that `owner` still holds, frees their queues, and returns the ids of the deleted ones.
    ///
    /// A job is missing there if its lock was taken away, by an administrator or for its age: it will be run again.
    pub async fn complete_jobs(&self, owner: &str, jobs: &[CompletedJob]) -> Result<Vec<i64>, QueueError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let sql = if jobs.iter().any(|job| job.job_queue_id.is_some()) { WITH_QUEUES } else { WITHOUT_QUEUES };
        let ids: Vec<i64> = jobs.iter().map(|job| job.id).collect();
        let rows = self.query(WHAT, sql, &[(&owner, Type::TEXT), (&ids, Type::INT8_ARRAY)]).await?;
        rows.iter().map(|row| row.try_get(0).map_err(|error| QueueError::statement(WHAT, &error))).collect()
    }
}
