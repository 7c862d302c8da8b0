//! Jobs that the database refuses to store or to claim: writes down why, as far as it lets that be.

use tokio_postgres::types::{ToSql, Type};

use super::{ClaimedJob, QueueError, Session, claimed::Claims};

const WHAT: &str = "note why a job is held back";

/// $1 owner, $2 to $5 the claim, $6 the reason. What was there before stays at the end. A reason that is there already is not
/// repeated, or the text would grow with each host and each start.
const NOTE_RESULT: &str = "
update @schema@._private_jobs as job
set last_error = concat_ws(E'\\n\\nbefore that: ', $6, job.last_error)
from unnest($2, $3, $4, $5) as claimed (id, attempt, keyed, locked_at)
where @still_claimed@
  and pg_catalog.starts_with(job.last_error, $6) is not true";

/// $1 owner, $2 queue, $3 job, $4 when its claim locked both. Once the queue is free, this owner may claim its next job, which
/// must not lose the queue when this is sent again. A renewal gives the two locks different times.
const FREE_QUEUE: &str = "
update @schema@._private_job_queues as queue
set locked_by = null, locked_at = null
where queue.id = $2
  and queue.locked_by = $1
  and (
    $4::timestamptz is null
    or queue.locked_at = $4
    or exists (
      select
      from @schema@._private_jobs as job
      where job.id = $3
        and job.locked_by = $1
        and job.locked_at <> $4
    )
  )";

/// $1 job, $2 the reason. Not while somebody has the job.
const NOTE_CLAIM: &str = "
update @schema@._private_jobs
set last_error = concat_ws(E'\\n\\nbefore that: ', $2, last_error)
where id = $1
  and is_available
  and pg_catalog.starts_with(last_error, $2) is not true";

impl Session {
    /// A job has ended, and what became of it is refused: it stays locked, with the reason in `last_error`.
    pub async fn note_refused_result(&self, owner: &str, job: &ClaimedJob, reason: &str) -> Result<(), QueueError> {
        let claims = Claims::of(std::iter::once(job));
        let [ids, attempts, keyed, locked_at] = claims.parameters();
        let parameters: [(&(dyn ToSql + Sync), Type); 6] =
            [(&owner, Type::TEXT), ids, attempts, keyed, locked_at, (&reason, Type::TEXT)];
        self.query(WHAT, NOTE_RESULT, &parameters).await.map(drop)
    }

    /// The next job of a queue may run while what became of this one is held back. Frees only what the claim of this job locked.
    pub async fn free_queue(&self, owner: &str, job: &ClaimedJob) -> Result<(), QueueError> {
        let Some(queue) = job.job_queue_id else { return Ok(()) };
        let parameters: [(&(dyn ToSql + Sync), Type); 4] =
            [(&owner, Type::TEXT), (&queue, Type::INT4), (&job.id, Type::INT8), (&job.locked_at, Type::TIMESTAMPTZ)];
        self.query("free a queue", FREE_QUEUE, &parameters).await.map(drop)
    }

    /// A job cannot be claimed: it stays as it is, with the reason in `last_error`.
    pub async fn note_refused_claim(&self, id: i64, reason: &str) -> Result<(), QueueError> {
        self.query(WHAT, NOTE_CLAIM, &[(&id, Type::INT8), (&reason, Type::TEXT)]).await.map(drop)
    }
}
