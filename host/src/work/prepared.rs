//! From the preparation of a pool to its end: the order in which its parts start and stop.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::Level;

use super::{
    claimer::Claimer,
    demand::Role,
    first_session::{FirstSession, prepare_session},
    liveness::show_life,
    locks::look_after_locks,
    orphaned_claims::{release_last_orphans, release_orphans},
    pool::Pool,
    refused::try_refused_again,
};
use crate::events::Event;

/// How long completions that the database does not take are tried again when the pool has to end.
const LAST_TRIES: Duration = Duration::from_secs(5);

/// A pool that shows life and gets ready to claim, while its tasks may still be being loaded. Dropping it ends that.
#[derive(Debug)]
pub struct PreparedPool {
    pool: Arc<Pool>,
    /// Fires after the last job's end.
    settled: CancellationToken,
    life: Option<AbortOnDropHandle<()>>,
    first: FirstSession,
}

impl PreparedPool {
    /// Begins with all that takes the database some time and needs no task.
    pub fn new(pool: &Arc<Pool>) -> Self {
        let settled = CancellationToken::new();
        let life = pool.settings().liveness.then(|| {
            let life = show_life(Arc::clone(pool), settled.clone());
            AbortOnDropHandle::new(
                pool.events().parts().part("liveness lock").spawn(pool.identity().closing().clone(), life),
            )
        });
        let first = pool.events().parts().spawn("first connection", {
            let pool = Arc::clone(pool);
            async move { prepare_session(&pool).await }
        });
        Self { pool: Arc::clone(pool), settled, life, first: AbortOnDropHandle::new(first) }
    }

    /// Works jobs until told to stop, or in [`Mode::Once`](super::Mode::Once) until none is left. When it returns, every job that
    /// was claimed has been completed, failed or released in the database.
    pub async fn run(self) {
        let Self { pool, settled, life, first } = self;
        pool.events().emit_if_heard(Level::TRACE, || Event::PoolCreated(pool.id()));
        let stored = CancellationToken::new();
        let part = |name| pool.events().parts().part(name);
        let over = || pool.identity().closing().clone();
        let locks = part("renewal of locks").spawn(over(), look_after_locks(Arc::clone(&pool), stored.clone()));
        let orphans =
            part("search for orphaned claims").spawn(over(), release_orphans(Arc::clone(&pool), stored.clone()));
        let owner = pool.owner().to_owned();
        let refused =
            part("retries of refused jobs").spawn(over(), try_refused_again(Arc::clone(&pool), stored.clone()));
        pool.events().emit(Event::WorkerReady { owner, concurrency: pool.settings().concurrency });
        let [primary, overflow] = [(Role::Primary, Some(first)), (Role::Overflow, None)].map(|(role, first)| {
            let claimer = Claimer::new(Arc::clone(&pool), role, first);
            // In a box, because it is large, and goes through several frames of a stack that may be small.
            AbortOnDropHandle::new(claimer.part().spawn(over(), Box::pin(claimer.run())))
        });
        pool.identity().closing().cancelled().await;
        let stopped = Instant::now();

        pool.events().emit_if_heard(Level::TRACE, || Event::WorkerStopped(pool.id()));
        pool.running().close();
        if !pool.identity().works_once() {
            pool.events().emit(Event::Stopping { running: pool.running().running(), forceful: false });
        }
        pool.wait_for_running(stopped).await;
        let all_stored = pool.wait_for_claimers(primary, overflow, stopped).await;
        stored.cancel();
        let _ = tokio::join!(locks, orphans, refused);
        if all_stored {
            let _ = tokio::time::timeout(LAST_TRIES, release_last_orphans(&pool)).await;
            pool.leave_refused_results().await;
        }
        settled.cancel();
        if let Some(life) = life {
            let _ = life.await;
        }
        pool.say_that_it_ended();
    }
}

impl Pool {
    /// Running jobs go on; after a while they are asked to end, and when their time is up or at the second signal made to.
    async fn wait_for_running(&self, stopped: Instant) {
        let escalate = async {
            let mut at_once = pin!(self.has_to_end(stopped));
            tokio::select! {
                biased;
                () = &mut at_once => {}
                () = tokio::time::sleep(self.settings().abort_timeout) => {
                    self.running().cancel().ask.cancel();
                    at_once.await;
                }
            }
            self.events().emit(Event::Stopping { running: self.running().running(), forceful: true });
            self.running().cancel().force.cancel();
            std::future::pending().await
        };
        tokio::select! {
            () = self.running().ended() => {}
            () = escalate => {}
        }
    }

    /// The second signal has come, or the time is up.
    async fn has_to_end(&self, stopped: Instant) {
        let out_of_time = async {
            match self.settings().stop_timeout {
                Some(timeout) => tokio::time::sleep_until((stopped + timeout).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.identity().stop().now.cancelled() => {}
            () = out_of_time => {}
        }
    }

    /// Tells whether all completions are stored.
    async fn wait_for_claimers(
        &self,
        primary: AbortOnDropHandle<()>,
        overflow: AbortOnDropHandle<()>,
        stopped: Instant,
    ) -> bool {
        let out_of_patience = async {
            self.has_to_end(stopped).await;
            tokio::time::sleep(LAST_TRIES).await;
        };
        let ended = async {
            let _ = overflow.await;
            self.wakes().overflow_ended();
            let _ = primary.await;
        };
        tokio::select! {
            () = ended => true,
            () = out_of_patience => {
                self.events().emit(Event::VerdictsLost { jobs: self.running().unsettled(), owner: self.owner().to_owned() });
                false
            }
        }
    }

    fn say_that_it_ended(&self) {
        if !self.events().is_heard(Level::TRACE) {
            return;
        }
        self.events().emit(Event::WorkerReleased(self.id()));
        if !self.identity().works_once() {
            self.events()
                .emit(Event::StopCompleted { pool: self.id(), forceful: self.identity().stop().now.is_cancelled() });
        }
        self.events().emit(Event::PoolReleased(self.id()));
    }
}
