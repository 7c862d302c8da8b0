//! The jobs of one express transaction, from the lock on their rows to the commit.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Notify;

use super::completion::Completion;
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
    /// When each of them was added.
    added_at: Vec<SystemTime>,
    deadline: Instant,
    state: Mutex<State>,
    /// All that run have ended.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    completions: Vec<Completion>,
    /// How many of those that run have not ended yet.
    left: usize,
    /// Those that no slot has taken in time: others may have them, as far as the database lets them.
    withdrawn: HashSet<i64>,
    /// Those that another claim of this pool has marked, because the connection was lost, and that were refused to it; and when
    /// it has.
    refused: HashMap<i64, SystemTime>,
    /// When the transaction has marked those that ran beyond it.
    marked: HashMap<i64, SystemTime>,
    /// Those that turned out to be somebody else's while they ran, because the connection was lost.
    disowned: HashSet<i64>,
}

/// Where the completion of a job goes.
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
    /// Of jobs by id, attempt and `created_at`, of which so many run before the commit. If others wait for it, it comes sooner.
    pub(super) fn new(mut jobs: Vec<(i64, i16, SystemTime)>, left: usize) -> Self {
        let hurry = left < jobs.len();
        jobs.sort_unstable();
        let (ids, attempts, added_at) = jobs.into_iter().collect();
        Self {
            ids,
            attempts,
            added_at,
            deadline: Instant::now() + if hurry { SHORT_BOUND } else { BOUND },
            state: Mutex::new(State {
                phase: Phase::Open,
                completions: Vec::with_capacity(left),
                left,
                withdrawn: HashSet::new(),
                refused: HashMap::new(),
                marked: HashMap::new(),
                disowned: HashSet::new(),
            }),
            ended: Notify::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Those that have not been withdrawn, with the attempts under way.
    pub(super) fn kept(&self) -> (Vec<i64>, Vec<i16>) {
        let state = self.state();
        let all = self.ids.iter().zip(&self.attempts);
        all.filter(|(id, _)| !state.withdrawn.contains(id)).unzip()
    }

    /// When those were added.
    pub(super) fn kept_since(&self) -> Vec<SystemTime> {
        let state = self.state();
        let all = self.ids.iter().zip(&self.added_at);
        all.filter(|(id, _)| !state.withdrawn.contains(id)).map(|(_, added_at)| *added_at).collect()
    }

    /// Whether one of these jobs may be among its own.
    pub(super) fn is_near(&self, mut ids: impl Iterator<Item = i64>) -> bool {
        let (Some(first), Some(last)) = (self.ids.first(), self.ids.last()) else { return false };
        ids.any(|id| (first..=last).contains(&&id))
    }

    pub(super) fn has(&self, id: i64) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// Whether a job that another claim brought, and perhaps `marked` at some time, is to be left to this batch: where the
    /// connection was lost and nobody has noticed yet, its jobs can be claimed again. Another `attempt` than its own is a new one:
    /// somebody else has run the job meanwhile.
    pub(super) fn refuses(&self, id: i64, attempt: i16, marked: Option<SystemTime>) -> bool {
        if self.ids.binary_search(&id).map(|place| self.attempts[place]) != Ok(attempt) {
            return false;
        }
        let mut state = self.state();
        let refuses = !state.withdrawn.contains(&id);
        if let Some(locked_at) = marked.filter(|_| refuses) {
            state.refused.insert(id, locked_at);
        }
        refuses
    }

    /// Others may have these of its jobs from now on. Gives the claims of those that were refused to others before, and which
    /// are therefore marked and nobody's: none of them has a key or a queue.
    pub(super) fn withdraw(&self, ids: &[i64]) -> Vec<ClaimedJob> {
        let mut state = self.state();
        state.withdrawn.extend(ids);
        let claim = |id: &i64| {
            let locked_at = Some(*state.refused.get(id)?);
            let attempt = self.attempts[self.ids.binary_search(id).ok()?];
            Some(ClaimedJob { id: *id, attempt, keyed: false, job_queue_id: None, locked_at })
        };
        ids.iter().filter_map(claim).collect()
    }

    /// Somebody else has these of its jobs. Should they still run, then nothing is to be stored of what becomes of them: this
    /// pool may have claimed the same attempt of them once more by then.
    pub(super) fn disown(&self, ids: impl Iterator<Item = i64>) {
        self.state().disowned.extend(ids);
    }

    /// Hands in the completion of one of its jobs; gives it back if the job is marked by now.
    pub(super) fn report(&self, completion: Completion) -> Option<Completion> {
        let mut state = self.state();
        if state.phase == Phase::Ended {
            return Some(state.of_marked(completion));
        }
        state.completions.push(completion);
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

    /// Takes the completions so far, to be stored in the transaction. May be called again if that failed.
    pub(super) fn take_completions(&self) -> Vec<Completion> {
        let mut state = self.state();
        state.phase = Phase::Ending;
        mem::take(&mut state.completions)
    }

    /// The transaction is committed: what still runs is `marked`. Gives the completions that came in the meantime.
    pub(super) fn committed(&self, marked: HashMap<i64, SystemTime>) -> Vec<Completion> {
        let mut state = self.state();
        state.phase = Phase::Ended;
        state.marked = marked;
        let completions = mem::take(&mut state.completions);
        completions.into_iter().map(|completion| state.of_marked(completion)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is stored of a job that is marked names the time of that. Of one that is somebody else's, it changes nothing.
    fn of_marked(&self, mut completion: Completion) -> Completion {
        let claim = &mut completion.claim;
        claim.locked_at = self.marked.get(&claim.id).copied();
        if self.disowned.contains(&claim.id) {
            completion.claim = claim.of_nobody();
        }
        completion
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(id: i64) -> Completion {
        let claim = ClaimedJob { id, attempt: 1, keyed: false, job_queue_id: None, locked_at: None };
        Completion::sample(claim, 1, 1, Duration::ZERO)
    }

    fn batch_of(jobs: &[(i64, i16)]) -> Vec<(i64, i16, SystemTime)> {
        jobs.iter().map(|(id, attempt)| (*id, *attempt, SystemTime::UNIX_EPOCH)).collect()
    }

    fn ids(completions: &[Completion]) -> Vec<i64> {
        completions.iter().map(|completion| completion.claim.id).collect()
    }

    #[tokio::test]
    async fn verdicts_go_into_the_transaction_until_it_ends_and_to_the_marked_jobs_after_the_commit() {
        let batch = ExpressBatch::new(batch_of(&[(3, 1), (1, 1), (2, 2)]), 3);
        assert_eq!(batch.kept(), (vec![1, 2, 3], vec![1, 2, 1]));
        assert!(batch.report(completion(1)).is_none());
        assert_eq!(ids(&batch.take_completions()), [1]);
        assert!(batch.report(completion(2)).is_none(), "nobody knows yet whether it is marked");
        let times = [2, 3].map(|id: i64| (id, SystemTime::UNIX_EPOCH + Duration::from_secs(id.unsigned_abs())));
        let claim = |completion: Completion| (completion.claim.id, completion.claim.locked_at);
        let late: Vec<_> = batch.committed(times.into()).into_iter().map(claim).collect();
        assert_eq!(late, [(2, Some(times[0].1))]);
        assert_eq!(batch.report(completion(3)).map(claim), Some((3, Some(times[1].1))));
    }

    #[tokio::test]
    async fn it_ends_with_its_last_job_or_when_its_time_is_up() {
        let began = tokio::time::Instant::now();
        let batch = ExpressBatch::new(batch_of(&[(1, 1)]), 1);
        batch.ended().await;
        assert!(began.elapsed() >= BOUND / 2, "it waited");
        batch.report(completion(1));
        batch.ended().await;
        ExpressBatch::new(batch_of(&[(1, 1)]), 0).ended().await;
    }

    #[test]
    fn a_job_that_is_somebody_elses_has_a_verdict_that_changes_nothing() {
        let batch = ExpressBatch::new(batch_of(&[(1, 2), (2, 1), (3, 1)]), 3);
        batch.take_completions();
        assert!(batch.report(completion(1)).is_none() && batch.report(completion(2)).is_none());
        batch.disown([1, 3].into_iter());
        let attempts: Vec<i16> =
            batch.committed(HashMap::new()).iter().map(|completion| completion.claim.attempt).collect();
        assert_eq!(attempts, [-1, 1]);
        assert_eq!(batch.report(completion(3)).map(|completion| completion.claim.attempt), Some(-1));
    }

    #[test]
    fn it_refuses_its_jobs_to_others_until_they_are_withdrawn() {
        let batch = ExpressBatch::new(batch_of(&[(10, 1), (30, 2), (20, 3)]), 3);
        assert!(batch.is_near([5, 25].into_iter()) && !batch.is_near([5, 35].into_iter()));
        let marked = Some(SystemTime::UNIX_EPOCH);
        assert!(!batch.refuses(25, 1, marked), "it has no such job");
        assert!(!batch.refuses(20, 4, marked), "somebody else has run it, and this is another attempt");
        assert!(batch.refuses(20, 3, marked) && batch.refuses(30, 2, None) && batch.refuses(10, 1, marked));
        let claims = batch.withdraw(&[20, 30]);
        let refused = ClaimedJob { id: 20, attempt: 3, keyed: false, job_queue_id: None, locked_at: marked };
        assert_eq!(claims, [refused], "marked by a claim that did not get it");
        assert!(
            !batch.refuses(20, 3, marked) && !batch.refuses(30, 2, marked),
            "whoever claims them now has to run them"
        );
        assert!(batch.refuses(10, 1, marked));
        assert_eq!(batch.kept(), (vec![10], vec![1]));
    }
}
