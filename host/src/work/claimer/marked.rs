//! The marked lane: one statement marks jobs, a later one stores their end.

use std::{collections::HashSet, time::Duration};

use super::Claimer;
use crate::{
    queue::{Conditions, Job, QueueError, Session},
    work::{
        completion::{Completion, StoredApart, store_apart},
        demand::Lane,
        held_job::HeldJob,
        pool::Pool,
        registered::Registered,
    },
};

/// How many statements may be sent to find the results that are refused, before others are stored and claimed again.
const TRIES_APART: usize = 200;

/// Marks up to `limit` jobs. Gives as well in how long a further claim could bring more.
pub(super) async fn claim(
    pool: &Pool,
    session: &Session,
    registered: &Registered,
    limit: usize,
    conditions: Conditions<'_>,
) -> Result<(Vec<Job>, Option<Duration>), QueueError> {
    if pool.identity().works_once() && pool.running().unsettled() == 0 {
        // If this claim finds nothing, there is nothing, and the pool ends.
        pool.database().reset_cursors();
    }
    let _unknown = pool.claimed_set().claiming().await;
    let mut jobs = session.get_jobs(pool.owner(), &registered.tasks, limit, conditions).await;
    if jobs.as_ref().is_err_and(QueueError::is_refusal) {
        jobs = claim_apart(pool, registered, limit, conditions).await;
    }
    match &jobs {
        Ok(jobs) => pool.claimed_set().add(jobs),
        Err(error) => pool.claimed_set().failed(error),
    }
    let jobs = jobs?;
    let sees_less = jobs.len() < limit;
    let again = sees_less.then(|| pool.database().next_full_scan(&registered.tasks, conditions)).flatten();
    Ok((jobs, again))
}

/// The database refuses to let some of the jobs be claimed: finds out which, leaves them out from now on, and claims others.
/// Uses a session of its own, because results may be being stored on the claimer's.
async fn claim_apart(
    pool: &Pool,
    registered: &Registered,
    wanted: usize,
    conditions: Conditions<'_>,
) -> Result<Vec<Job>, QueueError> {
    let session = pool.database().session().await?;
    let claimed = session.get_jobs_apart(pool.owner(), &registered.tasks, wanted, conditions).await;
    let claim = match claimed {
        Ok(claim) => claim,
        Err(error) => {
            session.discard();
            return Err(error);
        }
    };
    for (job, error) in &claim.refused {
        pool.hold_claim(job.id, registered.name(job.task_id), error);
    }
    pool.demand().claim_was_partial();
    if !claim.jobs.is_empty() {
        return Ok(claim.jobs);
    }
    // Where as many are refused as it looks at, this fails again, and the claimer waits before it tries the next ones.
    let left_out = pool.left_out(Lane::Marked);
    let conditions = Conditions { left_out: &left_out, ..conditions };
    session.get_jobs(pool.owner(), &registered.tasks, wanted, conditions).await
}

/// Has slots take what a claim has marked.
pub(super) fn hold(pool: &Pool, jobs: Vec<HeldJob>) {
    pool.running().held().add(jobs, None);
    if !pool.identity().is_alive() {
        pool.release_waiting();
    }
}

impl Claimer {
    pub(super) async fn settle_marked(
        &mut self,
        stored: Result<HashSet<i64>, QueueError>,
        mut completions: Vec<Completion>,
    ) {
        if completions.is_empty() {
            return;
        }
        match stored {
            Ok(late) => {
                self.store_backoff.succeeded();
                self.pool.claimed_set().remove(&completions);
                self.settled(completions, &late, 0);
            }
            Err(error) => {
                self.recover_marked(&mut completions);
                self.pool.claimed_set().failed(&error);
                self.store_backoff.wait(&error).await;
            }
        }
    }

    /// The database refuses some of the results: finds out which, and holds them back. What is left in `completions` is stored,
    /// unless this fails.
    pub(super) async fn store_apart(
        &self,
        session: &Session,
        completions: &mut Vec<Completion>,
    ) -> Result<HashSet<i64>, QueueError> {
        match store_apart(session, self.pool.owner(), std::mem::take(completions), TRIES_APART).await {
            Ok(StoredApart { stored, late, refused, untried }) => {
                *completions = stored;
                refused.into_iter().for_each(|(completion, error)| self.pool.hold_result(completion, &error));
                self.pool.completions().add_all(untried);
                Ok(late)
            }
            Err((error, all)) => {
                *completions = all;
                Err(error)
            }
        }
    }

    /// The answer was lost, so it is not known whether these are stored. Those that may be sent again are.
    pub(super) fn recover_marked(&self, completions: &mut Vec<Completion>) {
        self.pool.claimed_set().doubt(completions);
        self.pool.completions().add_again(std::mem::take(completions));
    }
}
