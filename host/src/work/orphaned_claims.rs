//! Orphaned claims: jobs and queues that are locked in this pool's name although it does not have them. Nobody else would work
//! them for as long as the pool lives.
//!
//! * The answer to a claim was lost with the connection.
//! * So was the answer to a return, and nobody knows whether it came through.
//! * After a failover, the new server has heard of a claim and not of the end of its job.
//! * Somebody has deleted a job that ran, and nothing has freed its queue.
//!
//! The pool remembers which marked jobs it has. After each lost connection and before it ends, it releases whatever else is
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
    completion::{Completion, store_apart},
    pool::Pool,
};
use crate::{
    events::Event,
    queue::{ClaimedJob, Job, QueueError, Session, Unlocked},
};

/// The waits before each search once an answer was lost: what was sent may be carried out later.
const SEARCHES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// Waiting longer for the claims under way would block new ones.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// The marked jobs that the pool has.
#[derive(Debug, Default)]
pub(super) struct ClaimedSet {
    /// By their ids, as they were claimed.
    jobs: Mutex<HashMap<i64, ClaimedJob>>,
    /// Releases whose answers were lost. Nobody sends them again: the pool may have claimed the job anew.
    doubtful: Mutex<Vec<Completion>>,
    /// Held for reading while a claim may mark jobs that are not known yet.
    claiming: RwLock<()>,
    /// An answer or a connection was lost.
    lost: Notify,
    /// How often that was, and how many of those losses have been searched for to the end.
    losses: AtomicU64,
    searched: AtomicU64,
}

impl ClaimedSet {
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

    /// One that is locked in the pool's name, and that cannot be released.
    fn keep(&self, claim: &ClaimedJob) {
        self.jobs().insert(claim.id, *claim);
    }

    /// What became of them is settled. Of a job that was claimed again, only the later claim counts.
    pub(super) fn remove(&self, completions: &[Completion]) {
        let mut jobs = self.jobs();
        for Completion { claim, .. } in completions {
            let same = |known: &ClaimedJob| {
                let times = known.locked_at.zip(claim.locked_at);
                known.attempt == claim.attempt && times.is_none_or(|(known, claimed)| known == claimed)
            };
            if jobs.get(&claim.id).is_some_and(same) {
                jobs.remove(&claim.id);
            }
        }
    }

    /// Takes the releases out, whose answers were lost.
    pub(super) fn doubt(&self, completions: &mut Vec<Completion>) {
        let doubtful: Vec<Completion> = completions.extract_if(.., |completion| completion.is_release()).collect();
        if !doubtful.is_empty() {
            self.remove(&doubtful);
            self.doubtful().extend(doubtful);
            self.suspect();
        }
    }

    /// A claim or a result failed.
    pub(super) fn failed(&self, error: &QueueError) {
        if error.connection_lost() {
            self.suspect();
        }
    }

    /// Something may be locked in the pool's name of which it does not know.
    pub(super) fn suspect(&self) {
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

    fn doubtful(&self) -> MutexGuard<'_, Vec<Completion>> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<i64, ClaimedJob>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Releases orphaned claims until `stop` fires.
pub(super) async fn release_orphans(pool: Arc<Pool>, stop: CancellationToken) {
    let mut backoff =
        Backoff::new("give back what this host does not have", pool.database().clone(), pool.events().clone());
    let searching = async {
        loop {
            pool.claimed_set().lost.notified().await;
            let mut losses = pool.claimed_set().losses.load(Ordering::Acquire);
            let mut waits = SEARCHES.into_iter();
            while let Some(wait) = waits.next() {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = pool.claimed_set().lost.notified() => {
                        losses = pool.claimed_set().losses.load(Ordering::Acquire);
                        waits = SEARCHES.into_iter();
                        continue;
                    }
                }
                loop {
                    match release_orphans_once(&pool).await {
                        Ok(Searched::Yes) => break,
                        Ok(Searched::TooBusy) => tokio::time::sleep(wait).await,
                        Err(error) => backoff.wait(&error).await,
                    }
                }
                backoff.succeeded();
            }
            pool.claimed_set().searched.store(losses, Ordering::Release);
            if !pool.claimed_set().doubtful().is_empty() {
                pool.claimed_set().suspect();
            }
        }
    };
    // Each statement is whole by itself, so leaving at any point loses nothing.
    stop.run_until_cancelled(searching).await;
}

/// For a pool that ends, whose claimers have: nothing is under way any more. What is found later is for those who take over. Where no
/// connection was lost, one try is enough, and a pool that works its jobs once needs none.
pub(super) async fn release_last_orphans(pool: &Pool) {
    let suspects =
        pool.claimed_set().losses.load(Ordering::Acquire) != pool.claimed_set().searched.load(Ordering::Acquire);
    if !suspects && pool.identity().works_once() {
        return;
    }
    while release_orphans_once(pool).await.is_err() && suspects {
        tokio::time::sleep(SEARCHES[0]).await;
    }
}

/// Whether it could be.
enum Searched {
    Yes,
    /// Claims were under way all the time.
    TooBusy,
}

async fn release_orphans_once(pool: &Pool) -> Result<Searched, QueueError> {
    // Those that come during the search may not have come through yet.
    let doubtful = pool.claimed_set().doubtful().len();
    let session = pool.database().session().await?;
    // While this is held, whatever is locked in the pool's name is known, or was never heard of.
    let Ok(_no_claim) = tokio::time::timeout(UNDER_WAY, pool.claimed_set().claiming.write()).await else {
        return Ok(Searched::TooBusy);
    };
    let mut orphans = session.locked_by(pool.owner()).await?;
    // In this order: jobs of a transaction of the express lane are known before it is no longer open.
    orphans.retain(|job| !pool.running().is_in_transaction(job.id));
    orphans.retain(|job| !pool.claimed_set().has(job));
    let jobs = match session.return_jobs(pool.owner(), &orphans).await {
        Err(error) if error.is_refusal() => release_apart(pool, &session, &orphans).await?,
        returned => returned?.len(),
    };
    let queues = session.free_queues(pool.owner(), &pool.claimed_set().queues()).await?;
    let freed = Unlocked { jobs: i64::try_from(jobs).unwrap_or(i64::MAX), queues };
    let settled: Vec<Completion> = pool.claimed_set().doubtful().drain(..doubtful).collect();
    if orphans.is_empty() && queues == 0 && settled.is_empty() {
        return Ok(Searched::Yes);
    }
    if queues > 0 {
        // Their jobs stand where claims may have passed them.
        pool.database().reset_cursors();
        pool.demand().marked_jobs_available();
    }
    if freed != Unlocked::default() {
        pool.events().emit(Event::GivenBack(freed));
    }
    pool.running().settled(settled.len());
    pool.nudge();
    settled.into_iter().for_each(|completion| completion.announce(pool.events()));
    Ok(Searched::Yes)
}

/// The database refuses to release some of them: these count as the pool's from here on, and are held back. Says how many
/// the others are.
async fn release_apart(pool: &Pool, session: &Session, jobs: &[ClaimedJob]) -> Result<usize, QueueError> {
    let completions = jobs.iter().copied().map(Completion::never_begun).collect();
    let apart = store_apart(session, pool.owner(), completions, usize::MAX).await.map_err(|(error, _)| error)?;
    for (completion, error) in apart.refused {
        pool.claimed_set().keep(&completion.claim);
        pool.running().claimed(1);
        pool.hold_result(completion, &error);
    }
    Ok(apart.stored.len())
}
