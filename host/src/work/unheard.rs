//! Jobs that a claim has marked whose answer was lost with the connection: nobody would work them for as long as this pool lives.
//!
//! The pool remembers which marked jobs it has. What else is locked in its name, while no claim is under way, goes back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, RwLock, RwLockReadGuard};
use tokio_util::sync::CancellationToken;

use super::{backoff::Backoff, pool::Pool, verdict::Verdict};
use crate::queue::{ClaimedJob, Job, QueueError};

/// After which waits to look once a claim's answer was lost: what it had sent may be carried out later.
const LOOKS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// Who waits longer for claims that are under way holds up those that would begin.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// The marked jobs that the pool has.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By their ids, with the attempts under way.
    jobs: Mutex<HashMap<i64, i16>>,
    /// Held for reading while a claim may mark jobs that are not known yet.
    claiming: RwLock<()>,
    /// A claim's answer was lost.
    lost: Notify,
}

impl Known {
    /// To be held from before a claim that marks until its jobs are known.
    pub(super) async fn claiming(&self) -> RwLockReadGuard<'_, ()> {
        self.claiming.read().await
    }

    pub(super) fn add(&self, jobs: &[Job]) {
        self.add_all(jobs.iter().map(|job| (job.id, job.attempts)));
    }

    pub(super) fn add_all(&self, jobs: impl IntoIterator<Item = (i64, i16)>) {
        self.jobs().extend(jobs);
    }

    /// What became of them is stored. Of a job that was taken away and claimed again, only the later claim counts.
    pub(super) fn remove(&self, verdicts: &[Verdict]) {
        let mut jobs = self.jobs();
        for Verdict { claim, .. } in verdicts {
            if jobs.get(&claim.id) == Some(&claim.attempt) {
                jobs.remove(&claim.id);
            }
        }
    }

    pub(super) fn claim_failed(&self, error: &QueueError) {
        if error.connection_lost() {
            self.lost.notify_one();
        }
    }

    fn has(&self, job: &ClaimedJob) -> bool {
        self.jobs().contains_key(&job.id)
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<i64, i16>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works until `stop` fires.
pub(super) async fn give_back_unheard(pool: Arc<Pool>, stop: CancellationToken) {
    let mut backoff =
        Backoff::new("look for jobs whose claim went unheard", pool.database.clone(), pool.events.clone());
    let looking = async {
        loop {
            pool.known.lost.notified().await;
            for wait in LOOKS {
                tokio::time::sleep(wait).await;
                while let Err(error) = give_back_once(&pool).await {
                    backoff.wait(&error).await;
                }
                backoff.succeeded();
            }
        }
    };
    // Each statement is whole by itself, so leaving at any point loses nothing.
    stop.run_until_cancelled(looking).await;
}

async fn give_back_once(pool: &Pool) -> Result<(), QueueError> {
    let session = pool.database.session().await?;
    // While this is held, whatever is locked in the pool's name is known, or was never heard of.
    let Ok(_no_claim) = tokio::time::timeout(UNDER_WAY, pool.known.claiming.write()).await else { return Ok(()) };
    let mut unheard = session.locked_by(pool.owner()).await?;
    // In this order: jobs of a transaction of the express lane are known before it is no longer open.
    unheard.retain(|job| !pool.is_in_open(job.id));
    unheard.retain(|job| !pool.known.has(job));
    if !unheard.is_empty() {
        session.return_jobs(pool.owner(), &unheard).await?;
        pool.nudge();
    }
    Ok(())
}
