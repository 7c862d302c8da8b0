//! What is held back, and how long each wait is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    events::{Event, LeftResult, Refusal},
    queue::ClaimedJob,
    work::completion::{Completion, End},
};

/// While so many results are held back, nothing is claimed: the database seems to refuse all of them.
pub(super) const MOST_RESULTS: usize = 1_000;

/// The first wait.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(60);

/// What is held back.
#[derive(Debug, Default)]
pub(in crate::work) struct Refused {
    pub(super) results: RefusedResults,
    pub(super) claims: RefusedClaims,
    /// There is more of it.
    pub(super) added: Notify,
}

/// How long to wait before one is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub(super) length: Duration,
    pub(super) until: Instant,
}

impl Wait {
    pub(super) fn first() -> Self {
        Self::of(SHORTEST)
    }

    pub(super) fn again(self) -> Self {
        Self::of((self.length * 2).min(LONGEST))
    }

    pub(super) fn of(length: Duration) -> Self {
        Self { length, until: Instant::now() + length }
    }
}

#[derive(Debug, Default)]
pub(super) struct RefusedClaims {
    pub(super) held: Mutex<HeldClaims>,
    /// There are jobs among what is held.
    pub(super) any: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct HeldClaims {
    pub(super) jobs: HashMap<i64, RefusedClaim>,
    /// Reasons to be written to the jobs.
    pub(super) to_note: Vec<(i64, String)>,
}

#[derive(Debug)]
pub(super) struct RefusedClaim {
    pub(super) wait: Wait,
    /// The wait is over, and the pool was told.
    pub(super) let_in: bool,
}

impl RefusedClaims {
    pub(super) fn next(&self) -> Option<Instant> {
        self.held().jobs.values().filter(|refused| !refused.let_in).map(|refused| refused.wait.until).min()
    }

    pub(super) fn are_to_be_noted(&self) -> bool {
        !self.held().to_note.is_empty()
    }

    pub(super) fn held(&self) -> MutexGuard<'_, HeldClaims> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(super) struct RefusedResults {
    pub(super) held: Mutex<Vec<RefusedResult>>,
}

#[derive(Debug)]
pub(super) struct RefusedResult {
    pub(super) completion: Completion,
    pub(super) task: Option<Arc<str>>,
    pub(super) reason: String,
    pub(super) wait: Wait,
    /// The reason is written to the job, as far as that can be.
    pub(super) noted: bool,
}

impl RefusedResults {
    pub(super) fn is_empty(&self) -> bool {
        self.held().is_empty()
    }

    pub(super) fn are_too_many(&self) -> bool {
        self.held().len() >= MOST_RESULTS
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.held().iter().map(|refused| refused.wait.until).min()
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Vec<RefusedResult>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the one of this claim.
    pub(super) fn change<T>(&self, claim: &ClaimedJob, change: impl FnOnce(&mut RefusedResult) -> T) -> Option<T> {
        self.held().iter_mut().find(|refused| refused.completion.claim == *claim).map(change)
    }

    pub(super) fn remove(&self, claim: &ClaimedJob) -> Option<RefusedResult> {
        let mut held = self.held();
        let place = held.iter().position(|refused| refused.completion.claim == *claim)?;
        Some(held.swap_remove(place))
    }
}

impl RefusedResult {
    /// For those who look at the job.
    pub(super) fn note(&self) -> String {
        let reason = &self.reason;
        match &self.completion.end {
            End::Complete => format!("this job was completed, but the database refuses to delete it: {reason}"),
            End::Fail { message, .. } => {
                format!("{message}\n\nthis failure could not be stored, so the job is held back: {reason}")
            }
            End::Release { .. } => format!("this job did not start and could not be given back: {reason}"),
        }
    }

    pub(super) fn left(self, left: LeftResult) -> Event {
        let Self { completion, task, reason, .. } = self;
        Event::Refused(Refusal::ResultLeft { id: completion.claim.id, task, error: reason, left })
    }
}
