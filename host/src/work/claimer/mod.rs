//! A claimer: stores completions and claims the next jobs, in one round trip to the database where that can be.
//!
//! A pool has two. The primary one works alone while there is little to do; the overflow claimer joins it when the backlog is
//! deep, and while a transaction of the express lane keeps the primary one busy.

mod claim;
mod express;
mod marked;

use std::{
    collections::HashSet,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use self::express::Open;
use super::{
    backoff::Backoff,
    completion::{Batch, Completion},
    demand::{Claim, Decision, LARGEST_BATCH, Lane, Role},
    first_session::FirstSession,
    pool::Pool,
};
use crate::{
    config::ForbiddenFlags,
    parts::Part,
    queue::{QueueError, Session},
};

/// How long the primary claimer waits for the end of a transaction before the overflow claimer has to stand in for it.
const UNBOUND: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Claimer {
    pool: Arc<Pool>,
    role: Role,
    part: Part,
    /// The session to begin with, while it is being prepared.
    first: Option<FirstSession>,
    session: Option<Session>,
    /// Whether the session has its statements for the express lane.
    prepared: bool,
    /// The transaction of the express lane that is open on the session.
    open: Option<Open>,
    /// Changes when tasks appear or vanish.
    map_changed: watch::Receiver<u64>,
    claim_backoff: Backoff,
    store_backoff: Backoff,
}

impl Claimer {
    /// The primary claimer claims first, on `first`.
    pub(super) fn new(pool: Arc<Pool>, role: Role, first: Option<FirstSession>) -> Self {
        let part = match role {
            Role::Primary => "claimer",
            Role::Overflow => "overflow claimer",
        };
        Self {
            map_changed: pool.tasks().subscribe(),
            part: pool.events().parts().part(part),
            claim_backoff: Backoff::new("claim jobs", pool.database().clone(), pool.events().clone()),
            store_backoff: Backoff::new("store the results of jobs", pool.database().clone(), pool.events().clone()),
            role,
            first,
            session: None,
            prepared: false,
            open: None,
            pool,
        }
    }

    /// What it is a part of the host as.
    pub(super) fn part(&self) -> Part {
        self.part.clone()
    }

    /// Works until the pool closes and, as the primary claimer, until every job that was claimed is settled.
    ///
    /// A claim that has begun is always awaited: abandoned half-way, it could lock jobs that nobody knows of.
    pub(super) async fn run(mut self) {
        let part = self.part();
        if let Some(first) = self.first.take() {
            self.session = part.outside(first).await.ok().flatten();
        }
        loop {
            part.turn();
            if let Some(open) = &self.open {
                self.wait_for(open).await;
            }
            if self.role == Role::Primary {
                self.pool.release_waiting();
            }
            let (claim, until) = match self.pool.demand().decide(self.role, &self.pool.snapshot()) {
                Decision::Claim(claim) => (Some(claim), None),
                Decision::Wait(until) => (None, until),
            };
            let completions = self.pool.completions().take(LARGEST_BATCH, self.pool.identity().is_closing());
            if let Some(open) = self.open.take() {
                part.outside(self.settle_express(open, completions, claim)).await;
            } else if !completions.is_empty() || claim.is_some() {
                part.outside(self.turn(completions, claim)).await;
            } else if self.is_over() {
                return;
            } else {
                self.wait(until).await;
            }
        }
    }

    async fn wait_for(&self, open: &Open) {
        let ended = async {
            tokio::select! {
                biased;
                () = open.ended() => {}
                () = self.pool.identity().closing().cancelled() => {}
            }
        };
        if self.role == Role::Overflow {
            return ended.await;
        }
        let mut ended = pin!(ended);
        // The overflow claimer asks the database on another processor, if there is one free: that of a job that begins now.
        if tokio::time::timeout(UNBOUND, &mut ended).await.is_err() {
            self.pool.wakes().with_primary_bound(ended).await;
        }
    }

    fn is_over(&self) -> bool {
        // In this order: what the last claim of the overflow claimer brought is among the unsettled jobs when it is over.
        let all_settled = || self.pool.wakes().has_overflow_ended() && self.pool.running().unsettled() == 0;
        self.pool.identity().is_closing() && (self.role == Role::Overflow || all_settled())
    }

    async fn wait(&mut self, until: Option<Instant>) {
        let pool = &self.pool;
        if self.role == Role::Overflow {
            tokio::select! {
                () = pool.wakes().overflow_woken() => pool.demand().overflow_called(),
                () = self.part.tick() => {}
                () = pool.identity().closing().cancelled() => {}
            }
            return;
        }
        let closing = pool.identity().is_closing();
        let alarm = async {
            match [until, pool.release_due(), pool.completions().due()].into_iter().flatten().min() {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = pool.wakes().primary_woken() => {}
            () = pool.identity().closing().cancelled(), if !closing => {}
            _ = self.map_changed.changed(), if !closing => pool.demand().jobs_available(),
            () = alarm => {}
            () = self.part.tick() => {}
        }
        pool.demand().time_passed(Instant::now());
    }

    /// Stores completions of marked jobs, and claims.
    async fn turn(&mut self, mut completions: Vec<Completion>, claim: Option<Claim>) {
        let lane = claim.map_or(Lane::Marked, |claim| claim.lane);
        let session = match self.connected(lane).await {
            Ok(session) => session,
            Err(error) => return self.not_connected(completions, &error).await,
        };
        let pool = Arc::clone(&self.pool);
        // A transaction begins when nothing else is under way on its connection, and results do not wait for answers.
        let after = lane == Lane::Express || matches!(pool.settings().forbidden_flags, ForbiddenFlags::Asked(_));
        let mut claiming = pool.begin_claim(claim.filter(|_| !after || completions.is_empty()));
        let results = Batch::of(&completions);
        let (mut stored, claimed) =
            tokio::join!(biased; results.store(&session, pool.owner()), self.claim(&session, claiming.as_ref()));
        if stored.as_ref().is_err_and(QueueError::is_refusal) {
            stored = self.store_apart(&session, &mut completions).await;
        }
        if stored.is_ok() && claimed.is_ok() {
            self.session = Some(session);
        } else {
            session.discard();
        }
        let claim_error = self.end_claim(claimed, &mut claiming);
        self.settle_marked(stored, completions).await;
        if let Some(error) = claim_error {
            self.claim_failed(&error).await;
        }
    }

    /// A session, and on it what the lane needs.
    async fn connected(&mut self, lane: Lane) -> Result<Session, QueueError> {
        let session = match self.session.take() {
            Some(session) if !session.is_lost() => session,
            _ => {
                self.prepared = false;
                let session = self.pool.database().session().await?;
                session.fit_out().await?;
                session
            }
        };
        if lane == Lane::Express && !self.prepared {
            session.prepare_express().await?;
            self.prepared = true;
        }
        Ok(session)
    }

    async fn not_connected(&mut self, completions: Vec<Completion>, error: &QueueError) {
        if completions.is_empty() {
            self.claim_failed(error).await;
        } else {
            self.pool.completions().add_all(completions);
            self.store_backoff.wait(error).await;
        }
    }

    /// Announces what is now stored, and has the pool poll where that made a job runnable. Those that came too `late` were
    /// not, and `withdrawn` others are no longer held.
    pub(super) fn settled(&self, completions: Vec<Completion>, late: &HashSet<i64>, withdrawn: usize) {
        let pool = &self.pool;
        pool.speed().learn(&completions);
        pool.running().settled(completions.len() + withdrawn);
        let frees_a_queue = completions.iter().any(Completion::frees_a_queue);
        if frees_a_queue {
            // Else the queue's next job would wait for one of the turns that the express lane leaves to others.
            pool.demand().marked_jobs_available();
        }
        let comes_back = completions.iter().any(Completion::comes_back);
        if pool.identity().works_once() || comes_back {
            pool.demand().jobs_available();
        }
        if self.role == Role::Overflow {
            pool.wakes().wake_primary();
        }
        if !late.is_empty() {
            // A return, perhaps only because the lock was renewed meanwhile. And while an old run went on, a search took its job
            // for claimed, even if an orphaned claim had locked it since.
            pool.claimed_set().suspect();
        }
        for completion in completions {
            // What is missing at the second try was stored by the first, as far as anybody can tell.
            if !late.is_empty() && !completion.repeated && late.contains(&completion.claim.id) {
                completion.announce_late(pool.events());
            } else {
                completion.announce(pool.events());
            }
        }
    }
}
