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
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    backoff::Backoff,
    completion::{Completion, store_apart},
    pool::Pool,
};
use crate::{
    events::Event,
    queue::{ClaimedJob, QueueError, Session, Unlocked},
};

/// The waits before each search once an answer was lost: what was sent may be carried out later.
const SEARCHES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// Waiting longer for the claims under way would block new ones.
const UNDER_WAY: Duration = Duration::from_secs(1);

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
