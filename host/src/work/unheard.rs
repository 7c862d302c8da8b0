//! Jobs and queues that are locked in this pool's name although it does not have them. Nobody else would work them for as long as
//! the pool lives.
//!
//! * The answer to a claim was lost with the connection.
//! * So was the answer to a return, and nobody knows whether it came through.
//! * After a failover, the new server has heard of a claim and not of the end of its job.
//! * Somebody has deleted a job that ran, and nothing has freed its queue.
//!
//! The pool remembers which marked jobs it has. After each lost connection and before it ends, it gives back whatever else is
//! locked in its name while no claim is under way.

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

use super::{
    backoff::Backoff,
    pool::{Mode, Pool},
    store_apart::store_apart,
    verdict::Verdict,
};
use crate::{
    events::Event,
    queue::{ClaimedJob, Job, QueueError, Session, Unlocked},
};

/// After which waits to look once a claim's answer was lost: what it had sent may be carried out later.
const LOOKS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// Who waits longer for claims that are under way holds up those that would begin.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// The marked jobs that the pool has.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By their ids, as they were claimed.
    jobs: Mutex<HashMap<i64, ClaimedJob>>,
    /// Returns whose answers were lost. Nobody sends them again: the pool may have claimed the job anew.
    doubtful: Mutex<Vec<Verdict>>,
    /// Held for reading while a claim may mark jobs that are not known yet.
    claiming: RwLock<()>,
    /// An answer or a connection was lost.
    lost: Notify,
    /// How often that was, and how many of those losses have been looked into to the end.
    losses: AtomicU64,
    looked_for: AtomicU64,
}

impl Known {
    /// To be held from before a claim that marks until its jobs are known.
    pub(super) async fn claiming(&self) -> RwLockReadGuard<'_, ()> {
        self.claiming.read().await
    }

    pub(super) fn add(&self, jobs: &[Job]) {
        self.jobs().extend(jobs.iter().map(|job| (job.id, ClaimedJob::of(job))));
    }

    /// Those that a transaction of the express lane has marked: their ids and attempts, and when they are.
    pub(super) fn add_express(&self, jobs: impl IntoIterator<Item = (i64, i16, SystemTime)>) {
        let claim = |(id, attempt, marked)| {
            (id, ClaimedJob { id, attempt, keyed: false, job_queue_id: None, locked_at: Some(marked) })
        };
        self.jobs().extend(jobs.into_iter().map(claim));
    }

    /// One that is locked in the pool's name, and that cannot be given back.
    fn keep(&self, claim: &ClaimedJob) {
        self.jobs().insert(claim.id, *claim);
    }

    /// What became of them is settled. Of a job that was claimed again, only the later claim counts.
    pub(super) fn remove(&self, verdicts: &[Verdict]) {
        let mut jobs = self.jobs();
        for Verdict { claim, .. } in verdicts {
            let same = |known: &ClaimedJob| {
                let times = known.locked_at.zip(claim.locked_at);
                known.attempt == claim.attempt && times.is_none_or(|(known, claimed)| known == claimed)
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

    /// A claim or a result failed.
    pub(super) fn failed(&self, error: &QueueError) {
        if error.connection_lost() {
            self.look();
        }
    }

    /// Something may be locked in the pool's name of which it does not know.
    pub(super) fn look(&self) {
        self.losses.fetch_add(1, Ordering::AcqRel);
        self.lost.notify_one();
    }

    /// Whether the pool has the job by the claim that has locked it.
    fn has(&self, job: &ClaimedJob) -> bool {
        self.jobs().get(&job.id).is_some_and(|known| known.locked(job.locked_at))
    }

    /// The queues of the jobs that the pool has.
    fn queues(&self) -> Vec<i32> {
        self.jobs().values().filter_map(|claim| claim.job_queue_id).collect()
    }

    fn doubtful(&self) -> MutexGuard<'_, Vec<Verdict>> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<i64, ClaimedJob>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works until `stop` fires.
pub(super) async fn give_back_unheard(pool: Arc<Pool>, stop: CancellationToken) {
    let mut backoff =
        Backoff::new("give back what this host does not have", pool.database.clone(), pool.events.clone());
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

/// For a pool that ends, whose lines have: nothing is under way any more. What is found later is for those who take over. Where no
/// connection was lost, one try is enough, and a pool that works its jobs once needs none.
pub(super) async fn give_back_the_last(pool: &Pool) {
    let suspects = pool.known.losses.load(Ordering::Acquire) != pool.known.looked_for.load(Ordering::Acquire);
    if !suspects && pool.mode == Mode::Once {
        return;
    }
    while give_back_once(pool).await.is_err() && suspects {
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
    let jobs = match session.return_jobs(pool.owner(), &unheard).await {
        Err(error) if error.is_refusal() => return_apart(pool, &session, &unheard).await?,
        returned => returned?.len(),
    };
    let queues = session.free_queues(pool.owner(), &pool.known.queues()).await?;
    let freed = Unlocked { jobs: i64::try_from(jobs).unwrap_or(i64::MAX), queues };
    let settled: Vec<Verdict> = pool.known.doubtful().drain(..doubtful).collect();
    if unheard.is_empty() && queues == 0 && settled.is_empty() {
        return Ok(Looked::Yes);
    }
    if queues > 0 {
        // Their jobs stand where claims may have passed them.
        pool.database.reset_cursors();
        pool.marked_next.store(true, Ordering::Release);
    }
    if freed != Unlocked::default() {
        pool.events.emit(Event::GivenBack(freed));
    }
    pool.unsettled.fetch_sub(settled.len(), Ordering::AcqRel);
    pool.nudge();
    settled.into_iter().for_each(|verdict| verdict.announce(&pool.events));
    Ok(Looked::Yes)
}

/// The database refuses to take some of them back: these count as the pool's from here on, and are held back. Says how many
/// the others are.
async fn return_apart(pool: &Pool, session: &Session, jobs: &[ClaimedJob]) -> Result<usize, QueueError> {
    let verdicts = jobs.iter().copied().map(Verdict::never_begun).collect();
    let apart = store_apart(session, pool.owner(), verdicts, usize::MAX).await.map_err(|(error, _)| error)?;
    for (verdict, error) in apart.refused {
        pool.known.keep(&verdict.claim);
        pool.unsettled.fetch_add(1, Ordering::AcqRel);
        pool.hold_result(verdict, &error);
    }
    Ok(apart.stored.len())
}
