//! How much to claim now, by which lane, and when to poll again: the one decision of both claimers.
//!
//! Events change the state, one method for each; [`decide`] turns it, with a [`Snapshot`] of the pool, into a [`Decision`].

mod claiming;
mod decision;
mod refetch;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

pub(super) use self::{
    claiming::{ClaimEnd, Claiming},
    decision::{Claim, Decision, LARGEST_BATCH, Lane, Role, Snapshot},
};
use self::{
    decision::{Rules, decide, low_water, poll_at},
    refetch::Refetch,
};
use crate::config::{self, WorkerSettings};

/// No number of jobs that wait is this one.
const NEVER: usize = usize::MAX;

#[derive(Debug)]
pub(super) struct Demand {
    rules: Rules,
    refetch: Option<config::Refetch>,
    /// The pool ends when no job is left that can run now.
    once: bool,
    state: Mutex<State>,
    /// When so few jobs wait for a slot, a claimer is woken to claim more. Beside the state, because slots read it for each job.
    wake_at: AtomicUsize,
}

#[derive(Debug)]
struct State {
    /// There may be jobs that no claim has seen.
    poll: bool,
    last_claim: Instant,
    /// When a claim could bring jobs although nothing has changed: there are some that the last one did not look at.
    again_at: Option<Instant>,
    /// The next claim is a marked one whatever suits.
    marked_next: bool,
    /// How many full claims by express there were since the last marked one.
    express_claims: usize,
    /// Most of the jobs that were claimed last could have taken the express lane.
    prefers_express: bool,
    /// The overflow claimer was called, and has found as much as it wanted since.
    overflow_called: bool,
    /// How many jobs the claims under way ask for.
    asked: usize,
    claims_begun: usize,
    claims_under_way: usize,
    /// Jobs went back because no slot was free for them in time: nothing is claimed before one is.
    resting: bool,
    /// The wait after a claim that brought few jobs.
    refetch: Option<Refetch>,
    /// What [`Demand::wake_at`] is while there may be jobs.
    low_water: usize,
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            poll: true,
            last_claim: now,
            again_at: None,
            marked_next: false,
            express_claims: 0,
            prefers_express: false,
            overflow_called: false,
            asked: 0,
            claims_begun: 0,
            claims_under_way: 0,
            resting: false,
            refetch: None,
            low_water: 0,
        }
    }
}

impl Demand {
    pub(super) fn new(settings: &WorkerSettings, once: bool) -> Self {
        let rules = Rules {
            slots: settings.concurrency,
            express: settings.claim == config::Claim::Express,
            local_queue: settings.local_queue.clone(),
            poll_interval: settings.poll_interval,
        };
        Self {
            rules,
            refetch: settings.refetch().cloned(),
            once,
            state: Mutex::new(State::new(Instant::now())),
            wake_at: AtomicUsize::new(0),
        }
    }

    /// What the claimer is to do now.
    pub(super) fn decide(&self, role: Role, seen: &Snapshot) -> Decision {
        self.change(|state| {
            state.low_water = low_water(&self.rules, state, seen.pace);
            state.resting &= seen.running >= self.rules.slots;
            decide(&self.rules, state, seen, role)
        })
    }

    /// Whether a claimer is to be woken now that so many jobs wait.
    pub(super) fn has_room(&self, waiting: usize) -> bool {
        waiting == self.wake_at.load(Ordering::Acquire)
    }

    /// There may be jobs that no claim has seen: they were added, unlocked or given back, or their task was.
    pub(super) fn jobs_available(&self) {
        self.change(|state| state.poll = true);
    }

    /// Postgres has told of new jobs.
    pub(super) fn jobs_announced(&self, count: usize) {
        self.change(|state| {
            state.refetch.take_if(|refetch| refetch.hear(count));
            state.poll = true;
        });
    }

    /// There may be jobs that only a marked claim finds: of a queue that is free now, or those that were refused.
    pub(super) fn marked_jobs_available(&self) {
        self.change(|state| (state.poll, state.marked_next) = (true, true));
    }

    /// Time has passed, perhaps up to the next poll.
    pub(super) fn time_passed(&self, now: Instant) {
        self.change(|state| state.poll |= poll_at(&self.rules, state) <= now);
    }

    /// Jobs went back because they had waited for a slot for too long.
    pub(super) fn jobs_waited_too_long(&self) {
        self.change(|state| state.resting = true);
    }

    /// The overflow claimer was called.
    pub(super) fn overflow_called(&self) {
        self.change(|state| state.overflow_called = true);
    }

    /// A claim has brought so many jobs, of which so many could have taken the express lane.
    pub(super) fn jobs_claimed(&self, jobs: usize, express: usize) {
        if jobs > 0 {
            self.change(|state| state.prefers_express = 2 * express >= jobs);
        }
    }

    /// A claim did not look at all jobs, because some were refused.
    pub(super) fn claim_was_partial(&self) {
        self.jobs_available();
    }

    /// Begins a claim. `unsettled` counts the jobs that were claimed and whose end is not stored.
    pub(super) fn begin(&self, claim: Claim, unsettled: impl FnOnce() -> usize) -> Claiming<'_> {
        self.change(|state| {
            // Whoever tells of jobs from here on is heard.
            state.poll = false;
            if claim.lane == Lane::Marked {
                state.marked_next = false;
            }
            state.asked += claim.limit;
            state.claims_under_way += 1;
            state.claims_begun += 1;
            // In this order: jobs of a claim that has ended are among the unsettled ones.
            let alone = state.claims_under_way == 1 && unsettled() == 0;
            Claiming::new(self, claim, state.claims_begun, alone)
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let changed = change(&mut state);
        self.wake_at.store(if state.poll { state.low_water } else { NEVER }, Ordering::Release);
        changed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
