//! Completes jobs: deletes them, and frees their queues.

use tokio_postgres::types::{ToSql, Type};

use super::{ClaimedJob, QueueError, Session, claimed::Claims};

const WHAT: &str = "complete jobs";

/// $1 owner, $2 to $5 the claims.
const WITHOUT_QUEUES: &str = "
delete from @schema@._private_jobs as job
using unnest($2, $3, $4, $5) as claimed (id, attempt, keyed, locked_at)
where @still_claimed@
returning job.id";

/// $1 owner, $2 to $5 the claims. A job that is not ours any more says nothing of its queue either: only the queues of deleted jobs are
/// freed, and of these only ours.
const WITH_QUEUES: &str = "
with
  deleted as (
    delete from @schema@._private_jobs as job
    using unnest($2, $3, $4, $5) as claimed (id, attempt, keyed, locked_at)
    where @still_claimed@
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
    /// Deletes those of the jobs that `owner` still holds by these claims, frees their queues, and returns the ids of the
    /// deleted ones.
    ///
    /// A job is missing there if its lock was taken away, by an administrator, for its age, or because this owner was taken for
    /// dead: it will be run again.
    pub async fn complete_jobs(&self, owner: &str, jobs: &[ClaimedJob]) -> Result<Vec<i64>, QueueError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let claims = Claims::of(jobs.iter());
        let sql = if claims.with_queues { WITH_QUEUES } else { WITHOUT_QUEUES };
        let [ids, attempts, keyed, locked_at] = claims.parameters();
        let parameters: [(&(dyn ToSql + Sync), Type); 5] = [(&owner, Type::TEXT), ids, attempts, keyed, locked_at];
        let rows = self.query(WHAT, sql, &parameters).await?;
        rows.iter().map(|row| row.try_get(0).map_err(|error| QueueError::statement(WHAT, &error))).collect()
    }
}
