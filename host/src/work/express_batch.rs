//! The jobs of one express transaction, from the lock on their rows to the commit.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::verdict::Verdict;

/// How long a transaction stays open at most, beside what the database itself takes. Whatever runs longer is marked then.
pub(super) const BOUND: Duration = Duration::from_millis(30);

/// The same where jobs of the marked lane wait for the commit.
const SHORT_BOUND: Duration = Duration::from_millis(5);

/// The jobs that were locked by one transaction.
#[derive(Debug)]
pub(super) struct ExpressBatch {
    /// In ascending order.
    ids: Vec<i64>,
    /// The attempt under way, of each of them.
    attempts: Vec<i16>,
    deadline: Instant,
    state: Mutex<State>,
    /// All that run have ended.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    verdicts: Vec<Verdict>,
    /// How many of those that run have not ended yet.
    left: usize,
}

/// Where the verdict of a job goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Into the transaction.
    Open,
    /// The transaction is being ended: the job is marked in it, and until that is certain nobody may store more.
    Ending,
    /// To those of the marked jobs.
    Ended,
}

impl ExpressBatch {
    /// Of jobs by id and attempt, of which so many run before the commit. If others wait for it, it comes sooner.
    pub(super) fn new(mut jobs: Vec<(i64, i16)>, left: usize) -> Self {
        let hurry = left < jobs.len();
        jobs.sort_unstable();
        let (ids, attempts) = jobs.into_iter().unzip();
        Self {
            ids,
            attempts,
            deadline: Instant::now() + if hurry { SHORT_BOUND } else { BOUND },
            state: Mutex::new(State { phase: Phase::Open, verdicts: Vec::with_capacity(left), left }),
            ended: Notify::new(),
        }
    }

    pub(super) fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// Whether it has one of these jobs. Where its connection was lost and nobody noticed yet, they can be claimed again.
    pub(super) fn shares(&self, ids: impl Iterator<Item = i64>) -> bool {
        let (Some(first), Some(last)) = (self.ids.first(), self.ids.last()) else { return false };
        ids.filter(|id| (first..=last).contains(&id)).any(|id| self.has(id))
    }

    pub(super) fn has(&self, id: i64) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    pub(super) fn attempts(&self) -> &[i16] {
        &self.attempts
    }

    /// Hands in the verdict of one of its jobs; gives it back if the job is marked by now.
    pub(super) fn report(&self, verdict: Verdict) -> Option<Verdict> {
        let mut state = self.state();
        if state.phase == Phase::Ended {
            return Some(verdict);
        }
        state.verdicts.push(verdict);
        state.left -= 1;
        if state.left == 0 && state.phase == Phase::Open {
            drop(state);
            self.ended.notify_one();
        }
        None
    }

    /// Returns when all of its jobs have ended, or its time is up.
    pub(super) async fn ended(&self) {
        let all = async {
            while self.state().left > 0 {
                self.ended.notified().await;
            }
        };
        let _ = tokio::time::timeout_at(self.deadline.into(), all).await;
    }

    /// Takes the verdicts so far, to be stored in the transaction. May be called again if that failed.
    pub(super) fn take_verdicts(&self) -> Vec<Verdict> {
        let mut state = self.state();
        state.phase = Phase::Ending;
        mem::take(&mut state.verdicts)
    }

    /// The transaction is committed: what still runs is marked. Gives the verdicts that came in the meantime.
    pub(super) fn committed(&self) -> Vec<Verdict> {
        let mut state = self.state();
        state.phase = Phase::Ended;
        mem::take(&mut state.verdicts)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
