//! Jobs that a claim has marked whose answer was lost with the connection: nobody would work them for as long as this pool lives.
//! And those that were given back without anybody knowing whether that came through.
//!
//! The pool remembers which marked jobs it has. What else is locked in its name, while no claim is under way, goes back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
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
    /// By their ids: the attempt under way, and when the claim was made as far as that is known.
    jobs: Mutex<HashMap<i64, (i16, Option<SystemTime>)>>,
    /// Returns whose answers were lost. Nobody sends them again: the pool may have claimed the job anew.
    doubtful: Mutex<Vec<Verdict>>,
    /// Held for reading while a claim may mark jobs that are not known yet.
    claiming: RwLock<()>,
    /// An answer was lost.
    lost: Notify,
    /// How many were, and how many of those have been looked for to the end.
    losses: AtomicU64,
    looked_for: AtomicU64,
}

impl Known {
    /// To be held from before a claim that marks until its jobs are known.
    pub(super) async fn claiming(&self) -> RwLockReadGuard<'_, ()> {
        self.claiming.read().await
    }

    pub(super) fn add(&self, jobs: &[Job]) {
        self.jobs().extend(jobs.iter().map(|job| (job.id, (job.attempts, job.locked_at))));
    }

    /// Those that a transaction of the express lane has marked: their ids and attempts, and when they are.
    pub(super) fn add_express(&self, jobs: impl IntoIterator<Item = (i64, i16, SystemTime)>) {
        self.jobs().extend(jobs.into_iter().map(|(id, attempt, marked)| (id, (attempt, Some(marked)))));
    }

    /// What became of them is settled. Of a job that was claimed again, only the later claim counts.
    pub(super) fn remove(&self, verdicts: &[Verdict]) {
        let mut jobs = self.jobs();
        for Verdict { claim, .. } in verdicts {
            let same = |(attempt, locked_at): &(i16, Option<SystemTime>)| {
                let times = locked_at.zip(claim.locked_at);
                *attempt == claim.attempt && times.is_none_or(|(known, claimed)| known == claimed)
            };
            if jobs.get(&claim.id).is_some_and(same) {
                jobs.remove(&claim.id);
            }
        }
    }

    /// Takes those out that give jobs back, whose answers were lost.
    pub(super) fn doubt(&self, verdicts: &mut Vec<Verdict>) {
        let doubtful: Vec<Verdict> = verdicts.extract_if(.., |verdict| verdict.is_return()).collect();
        if !doubtful.is_empty() {
            self.remove(&doubtful);
            self.doubtful().extend(doubtful);
            self.look();
        }
    }

    pub(super) fn claim_failed(&self, error: &QueueError) {
        if error.connection_lost() {
            self.look();
        }
    }

    /// Something may be locked in the pool's name of which it does not know.
    pub(super) fn look(&self) {
        self.losses.fetch_add(1, Ordering::AcqRel);
        self.lost.notify_one();
    }

    fn has(&self, job: &ClaimedJob) -> bool {
        self.jobs().contains_key(&job.id)
    }

    fn doubtful(&self) -> MutexGuard<'_, Vec<Verdict>> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<i64, (i16, Option<SystemTime>)>> {
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
            let mut losses = pool.known.losses.load(Ordering::Acquire);
            let mut waits = LOOKS.into_iter();
            while let Some(wait) = waits.next() {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = pool.known.lost.notified() => {
                        losses = pool.known.losses.load(Ordering::Acquire);
                        waits = LOOKS.into_iter();
                        continue;
                    }
                }
                loop {
                    match give_back_once(&pool).await {
                        Ok(Looked::Yes) => break,
                        Ok(Looked::TooBusy) => tokio::time::sleep(wait).await,
                        Err(error) => backoff.wait(&error).await,
                    }
                }
                backoff.succeeded();
            }
            pool.known.looked_for.store(losses, Ordering::Release);
            if !pool.known.doubtful().is_empty() {
                pool.known.look();
            }
        }
    };
    // Each statement is whole by itself, so leaving at any point loses nothing.
    stop.run_until_cancelled(looking).await;
}

/// For a pool that ends, whose lines have: nothing is under way any more. What is found later is for those who take over.
pub(super) async fn give_back_the_last(pool: &Pool) {
    if pool.known.losses.load(Ordering::Acquire) == pool.known.looked_for.load(Ordering::Acquire) {
        return;
    }
    while give_back_once(pool).await.is_err() {
        tokio::time::sleep(LOOKS[0]).await;
    }
}

/// Whether it could be.
enum Looked {
    Yes,
    /// Claims were under way all the time.
    TooBusy,
}

async fn give_back_once(pool: &Pool) -> Result<Looked, QueueError> {
    // Those that come while it looks may not have come through yet.
    let doubtful = pool.known.doubtful().len();
    let session = pool.database.session().await?;
    // While this is held, whatever is locked in the pool's name is known, or was never heard of.
    let Ok(_no_claim) = tokio::time::timeout(UNDER_WAY, pool.known.claiming.write()).await else {
        return Ok(Looked::TooBusy);
    };
    let mut unheard = session.locked_by(pool.owner()).await?;
    // In this order: jobs of a transaction of the express lane are known before it is no longer open.
    unheard.retain(|job| !pool.is_in_open(job.id));
    unheard.retain(|job| !pool.known.has(job));
    session.return_jobs(pool.owner(), &unheard).await?;
    let settled: Vec<Verdict> = pool.known.doubtful().drain(..doubtful).collect();
    if unheard.is_empty() && settled.is_empty() {
        return Ok(Looked::Yes);
    }
    pool.unsettled.fetch_sub(settled.len(), Ordering::AcqRel);
    pool.nudge();
    settled.into_iter().for_each(|verdict| verdict.announce(&pool.events));
    Ok(Looked::Yes)
}
