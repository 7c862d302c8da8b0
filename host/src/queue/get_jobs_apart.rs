//! Claims jobs although the database refuses to let some of them be claimed: finds them, locks them, and marks them part by part.

use std::time::Instant;

use tokio_postgres::types::{ToSql, Type};

use super::{Bisection, Conditions, Job, QueueError, Session, TaskIds, claim::lock, get_jobs::MOST_CAREFULLY};

const WHAT: &str = "claim jobs";

/// The most statements for one claim.
const TRIES: usize = 300;

/// Constraints that are checked at the commit are to speak where it is known which job they mean.
const AT_ONCE: &str = "set constraints all immediate";
const END: &str = "commit";

/// $1 owner, $2 ids of jobs, $3 ids of queues, all of them locked by this transaction.
const MARK: &str = "
with queue as (
  update @schema@._private_job_queues
  set locked_by = $1, locked_at = now()
  where id = any ($3)
)
update @schema@._private_jobs
set attempts = attempts + 1, locked_by = $1, locked_at = now()
where id = any ($2)";

/// What such a claim brought.
#[derive(Debug)]
pub struct CarefulClaim {
    pub jobs: Vec<Job>,
    /// Jobs that cannot be claimed, and what the database said. They are as they were.
    pub refused: Vec<(Job, QueueError)>,
}

impl Session {
    /// As [`Session::get_jobs`], for when that was refused. Looks at 100 jobs at most.
    ///
    /// On an error, the session has to be dropped: a transaction may be open on it.
    pub async fn get_jobs_apart(
        &self,
        owner: &str,
        tasks: &TaskIds,
        limit: usize,
        conditions: Conditions<'_>,
    ) -> Result<CarefulClaim, QueueError> {
        let limit = limit.min(MOST_CAREFULLY);
        // The result of this scan is not recorded: refused jobs stay available.
        let state = self.database().memory().of(tasks.ids(), conditions);
        let picked = lock(&state).pick_carefully(limit);
        let begin = lock(&state).begin(limit, Instant::now());
        self.command(WHAT, self.begin_read_committed()).await?;
        self.command(WHAT, AT_ONCE).await?;
        let found = match picked {
            Some(picked) => self.claim_picked(true, owner, tasks, &picked, conditions).await?,
            None => self.claim(true, owner, tasks, limit, &begin, conditions).await?,
        };
        let mut found: Vec<Option<Job>> = found.jobs.into_iter().map(Some).collect();
        let mut parts = Bisection::new(found.len(), TRIES);
        while let Some(part) = parts.next() {
            let ran = async { self.mark(owner, &found[part.clone()]).await };
            parts.ran(part.clone(), ran.await)?;
        }
        let apart = parts.end();
        let mut refused = Vec::new();
        for (index, error) in apart.refused {
            refused.extend(found[index].take().map(|job| (job, error)));
        }
        for index in apart.untried {
            found[index] = None;
        }
        self.command(WHAT, END).await?;
        Ok(CarefulClaim { jobs: found.into_iter().flatten().collect(), refused })
    }

    async fn mark(&self, owner: &str, jobs: &[Option<Job>]) -> Result<(), QueueError> {
        let ids: Vec<i64> = jobs.iter().flatten().map(|job| job.id).collect();
        let queues: Vec<i32> = jobs.iter().flatten().filter_map(|job| job.job_queue_id).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&owner, Type::TEXT), (&ids, Type::INT8_ARRAY), (&queues, Type::INT4_ARRAY)];
        self.try_as_part(WHAT, MARK, &parameters).await.map(drop)
    }
}
