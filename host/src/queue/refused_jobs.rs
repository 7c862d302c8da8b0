//! Jobs that the database refuses to store or to claim: writes down why, as far as it lets that be.

use tokio_postgres::types::{ToSql, Type};

use super::{ClaimedJob, QueueError, Session, claimed::Claims};

const WHAT: &str = "note why a job is held back";

/// $1 owner, $2 to $5 the claim, $6 the reason. What was there before stays at the end.
const NOTE_RESULT: &str = "
update @schema@._private_jobs as job
set last_error = concat_ws(E'\\n\\nbefore that: ', $6, job.last_error)
from unnest($2, $3, $4, $5) as claimed (id, attempt, keyed, locked_at)
where @still_claimed@";

/// $1 owner, $2 queue.
const FREE_QUEUE: &str = "
update @schema@._private_job_queues
set locked_by = null, locked_at = null
where id = $2 and locked_by = $1";

/// $1 job, $2 the reason. Not while somebody has the job.
const NOTE_CLAIM: &str = "
update @schema@._private_jobs
set last_error = concat_ws(E'\\n\\nbefore that: ', $2, last_error)
where id = $1 and is_available";

impl Session {
    /// A job has ended, and what became of it is refused: it stays locked, with the reason in `last_error`.
    pub async fn note_refused_result(&self, owner: &str, job: &ClaimedJob, reason: &str) -> Result<(), QueueError> {
        let claims = Claims::of(std::iter::once(job));
        let [ids, attempts, keyed, locked_at] = claims.parameters();
        let parameters: [(&(dyn ToSql + Sync), Type); 6] =
            [(&owner, Type::TEXT), ids, attempts, keyed, locked_at, (&reason, Type::TEXT)];
        self.query(WHAT, NOTE_RESULT, &parameters).await.map(drop)
    }

    /// The next job of a queue may run while what became of this one is held back.
    pub async fn free_queue(&self, owner: &str, queue: i32) -> Result<(), QueueError> {
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&owner, Type::TEXT), (&queue, Type::INT4)];
        self.query("free a queue", FREE_QUEUE, &parameters).await.map(drop)
    }

    /// A job cannot be claimed: it stays as it is, with the reason in `last_error`.
    pub async fn note_refused_claim(&self, id: i64, reason: &str) -> Result<(), QueueError> {
        self.query(WHAT, NOTE_CLAIM, &[(&id, Type::INT8), (&reason, Type::TEXT)]).await.map(drop)
    }
}
