//! The jobs of one express transaction, from the lock on their rows to the commit.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::verdict::Verdict;
use crate::queue::ClaimedJob;

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

    /// The claim of one of its jobs. None of those that it runs has a key or a queue.
    pub(super) fn claim(&self, id: i64) -> Option<ClaimedJob> {
        let attempt = self.attempts[self.ids.binary_search(&id).ok()?];
        Some(ClaimedJob { id, attempt, keyed: false, job_queue_id: None })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::verdict::VerdictKind;

    fn verdict(id: i64) -> Verdict {
        Verdict {
            claim: ClaimedJob { id, attempt: 1, keyed: false, job_queue_id: None },
            task_id: 1,
            map: 1,
            took: Duration::ZERO,
            kind: VerdictKind::Complete,
            run: None,
            repeated: false,
        }
    }

    fn ids(verdicts: &[Verdict]) -> Vec<i64> {
        verdicts.iter().map(|verdict| verdict.claim.id).collect()
    }

    #[tokio::test]
    async fn verdicts_go_into_the_transaction_until_it_ends_and_to_the_marked_jobs_after_the_commit() {
        let batch = ExpressBatch::new(vec![(3, 1), (1, 1), (2, 2)], 3);
        assert_eq!((batch.ids(), batch.attempts()), (&[1, 2, 3][..], &[1, 2, 1][..]));
        assert!(batch.report(verdict(1)).is_none());
        assert_eq!(ids(&batch.take_verdicts()), [1]);
        assert!(batch.report(verdict(2)).is_none(), "nobody knows yet whether it is marked");
        assert_eq!(ids(&batch.committed()), [2]);
        assert_eq!(batch.report(verdict(3)).map(|verdict| verdict.claim.id), Some(3));
    }

    #[tokio::test]
    async fn it_ends_with_its_last_job_or_when_its_time_is_up() {
        let began = tokio::time::Instant::now();
        let batch = ExpressBatch::new(vec![(1, 1)], 1);
        batch.ended().await;
        assert!(began.elapsed() >= BOUND / 2, "it waited");
        batch.report(verdict(1));
        batch.ended().await;
        ExpressBatch::new(vec![(1, 1)], 0).ended().await;
    }

    #[test]
    fn it_knows_its_jobs() {
        let batch = ExpressBatch::new(vec![(10, 1), (30, 1), (20, 1)], 2);
        assert!(batch.has(30) && !batch.has(25));
        assert!(batch.shares([5, 20].into_iter()));
        assert!(!batch.shares([5, 25, 35].into_iter()));
    }
}
