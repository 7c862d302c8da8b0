//! The jobs of one express transaction, from the lock on their rows to the commit.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Notify;

use super::completion::Completion;
use crate::queue::{ClaimedJob, Job};

/// How long a transaction stays open at most, beside what the database itself takes. Whatever runs longer is marked then.
pub(super) const BOUND: Duration = Duration::from_millis(30);

/// The same where jobs of the marked lane wait for the commit.
const SHORT_BOUND: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Transaction {
    /// The lowest and the highest id of its jobs.
    ids: Option<(i64, i64)>,
    deadline: Instant,
    state: Mutex<State>,
    /// All that run have ended.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// In ascending order of their ids.
    jobs: Vec<LockedJob>,
    /// Of those that have ended since they were last taken.
    completions: Vec<Completion>,
    /// How many of those that run have not ended yet.
    left: usize,
}

/// A job whose row the transaction has locked.
#[derive(Debug)]
pub(super) struct LockedJob {
    id: i64,
    /// The attempt under way.
    attempt: i16,
    added_at: SystemTime,
    hold: Hold,
}

/// What the transaction has of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// The lock on its row.
    Locked,
    /// The connection was lost, so another claim of this pool has marked the job then. That claim did not get it.
    MarkedByOther(SystemTime),
    /// Nothing: no slot has taken the job in time, and others may have it, as far as the database lets them.
    Withdrawn,
    /// The commit has marked the job then, because it ran beyond it.
    Marked(SystemTime),
    /// Nothing: the job turned out to be somebody else's while it ran, because the connection was lost.
    Disowned,
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

/// The jobs that a transaction still has, column by column.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) ids: Vec<i64>,
    pub(super) attempts: Vec<i16>,
    pub(super) added_at: Vec<SystemTime>,
}

impl LockedJob {
    pub(super) fn of(job: &Job) -> Self {
        Self { id: job.id, attempt: job.attempts, added_at: job.created_at, hold: Hold::Locked }
    }
}

impl Transaction {
    /// Of these jobs, of which so many run before the commit. If others wait for it, it comes sooner.
    pub(super) fn new(mut jobs: Vec<LockedJob>, left: usize) -> Self {
        let hurry = left < jobs.len();
        jobs.sort_unstable_by_key(|job| job.id);
        Self {
            ids: jobs.first().zip(jobs.last()).map(|(first, last)| (first.id, last.id)),
            deadline: Instant::now() + if hurry { SHORT_BOUND } else { BOUND },
            state: Mutex::new(State { phase: Phase::Open, jobs, completions: Vec::with_capacity(left), left }),
            ended: Notify::new(),
        }
    }

    /// How many jobs it had when it began.
    pub(super) fn len(&self) -> usize {
        self.state().jobs.len()
    }

    /// Those that have not been withdrawn.
    pub(super) fn kept(&self) -> Kept {
        let state = self.state();
        let mut kept = Kept::default();
        for job in state.jobs.iter().filter(|job| job.hold != Hold::Withdrawn) {
            kept.ids.push(job.id);
            kept.attempts.push(job.attempt);
            kept.added_at.push(job.added_at);
        }
        kept
    }

    /// Whether one of these jobs may be among its own.
    pub(super) fn is_near(&self, mut ids: impl Iterator<Item = i64>) -> bool {
        self.ids.is_some_and(|(first, last)| ids.any(|id| (first..=last).contains(&id)))
    }

    pub(super) fn has(&self, id: i64) -> bool {
        self.state().job(id).is_some()
    }

    /// Whether a job that another claim brought, and perhaps `marked` at some time, is to be left to this transaction: where the
    /// connection was lost and nobody has noticed yet, its jobs can be claimed again. Another `attempt` than its own is a new one:
    /// somebody else has run the job meanwhile.
    pub(super) fn refuses(&self, id: i64, attempt: i16, marked: Option<SystemTime>) -> bool {
        let mut state = self.state();
        let own = state.job(id).filter(|job| job.attempt == attempt && job.hold != Hold::Withdrawn);
        let Some(job) = own else { return false };
        if let (Hold::Locked | Hold::MarkedByOther(_), Some(at)) = (job.hold, marked) {
            job.hold = Hold::MarkedByOther(at);
        }
        true
    }

    /// Others may have these of its jobs from now on. Gives the claims of those that were refused to others before, and which
    /// are therefore marked and nobody's: none of them has a key or a queue.
    pub(super) fn withdraw(&self, ids: &[i64]) -> Vec<ClaimedJob> {
        let mut state = self.state();
        let mut withdraw = |id: &i64| {
            let job = state.job(*id)?;
            match mem::replace(&mut job.hold, Hold::Withdrawn) {
                Hold::MarkedByOther(at) => Some(ClaimedJob {
                    id: *id,
                    attempt: job.attempt,
                    keyed: false,
                    job_queue_id: None,
                    locked_at: Some(at),
                }),
                Hold::Locked | Hold::Withdrawn | Hold::Marked(_) | Hold::Disowned => None,
            }
        };
        ids.iter().filter_map(&mut withdraw).collect()
    }

    /// Somebody else has these of its jobs. Should they still run, then nothing is to be stored of what becomes of them: this
    /// pool may have claimed the same attempt of them once more by then.
    pub(super) fn disown(&self, ids: impl Iterator<Item = i64>) {
        let mut state = self.state();
        for id in ids {
            if let Some(job) = state.job(id) {
                job.hold = Hold::Disowned;
            }
        }
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
    pub(super) fn committed(&self, marked: &HashMap<i64, SystemTime>) -> Vec<Completion> {
        let mut state = self.state();
        state.phase = Phase::Ended;
        for (id, at) in marked {
            if let Some(job) = state.job(*id) {
                job.hold = Hold::Marked(*at);
            }
        }
        let completions = mem::take(&mut state.completions);
        completions.into_iter().map(|completion| state.of_marked(completion)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn job(&mut self, id: i64) -> Option<&mut LockedJob> {
        let place = self.jobs.binary_search_by_key(&id, |job| job.id).ok()?;
        Some(&mut self.jobs[place])
    }

    /// What is stored of a job that is marked names the time of that. Of one that is somebody else's, it changes nothing.
    fn of_marked(&mut self, mut completion: Completion) -> Completion {
        let claim = &mut completion.claim;
        let hold = self.job(claim.id).map(|job| job.hold);
        claim.locked_at = if let Some(Hold::Marked(at)) = hold { Some(at) } else { None };
        if hold == Some(Hold::Disowned) {
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

    fn jobs(jobs: &[(i64, i16)]) -> Vec<LockedJob> {
        let job = |(id, attempt): &(i64, i16)| LockedJob::of(&Job { attempts: *attempt, ..Job::sample(*id) });
        jobs.iter().map(job).collect()
    }

    fn kept(transaction: &Transaction) -> (Vec<i64>, Vec<i16>) {
        let Kept { ids, attempts, .. } = transaction.kept();
        (ids, attempts)
    }

    fn ids(completions: &[Completion]) -> Vec<i64> {
        completions.iter().map(|completion| completion.claim.id).collect()
    }

    #[tokio::test]
    async fn completions_go_into_the_transaction_until_it_ends_and_to_the_marked_jobs_after_the_commit() {
        let transaction = Transaction::new(jobs(&[(3, 1), (1, 1), (2, 2)]), 3);
        assert_eq!(kept(&transaction), (vec![1, 2, 3], vec![1, 2, 1]));
        assert!(transaction.report(completion(1)).is_none());
        assert_eq!(ids(&transaction.take_completions()), [1]);
        assert!(transaction.report(completion(2)).is_none(), "nobody knows yet whether it is marked");
        let times = [2, 3].map(|id: i64| (id, SystemTime::UNIX_EPOCH + Duration::from_secs(id.unsigned_abs())));
        let claim = |completion: Completion| (completion.claim.id, completion.claim.locked_at);
        let late: Vec<_> = transaction.committed(&times.into()).into_iter().map(claim).collect();
        assert_eq!(late, [(2, Some(times[0].1))]);
        assert_eq!(transaction.report(completion(3)).map(claim), Some((3, Some(times[1].1))));
    }

    #[tokio::test]
    async fn it_ends_with_its_last_job_or_when_its_time_is_up() {
        let began = tokio::time::Instant::now();
        let transaction = Transaction::new(jobs(&[(1, 1)]), 1);
        transaction.ended().await;
        assert!(began.elapsed() >= BOUND / 2, "it waited");
        transaction.report(completion(1));
        transaction.ended().await;
        Transaction::new(jobs(&[(1, 1)]), 0).ended().await;
    }

    #[test]
    fn a_job_that_is_somebody_elses_has_a_completion_that_changes_nothing() {
        let transaction = Transaction::new(jobs(&[(1, 2), (2, 1), (3, 1)]), 3);
        transaction.take_completions();
        assert!(transaction.report(completion(1)).is_none() && transaction.report(completion(2)).is_none());
        transaction.disown([1, 3].into_iter());
        let late = transaction.committed(&HashMap::new());
        assert_eq!(late.iter().map(|completion| completion.claim.attempt).collect::<Vec<_>>(), [-1, 1]);
        assert_eq!(transaction.report(completion(3)).map(|completion| completion.claim.attempt), Some(-1));
    }

    #[test]
    fn it_refuses_its_jobs_to_others_until_they_are_withdrawn() {
        let transaction = Transaction::new(jobs(&[(10, 1), (30, 2), (20, 3)]), 3);
        assert!(transaction.is_near([5, 25].into_iter()) && !transaction.is_near([5, 35].into_iter()));
        let marked = Some(SystemTime::UNIX_EPOCH);
        assert!(!transaction.refuses(25, 1, marked), "it has no such job");
        assert!(!transaction.refuses(20, 4, marked), "somebody else has run it, and this is another attempt");
        assert!(transaction.refuses(20, 3, marked) && transaction.refuses(30, 2, None));
        assert!(transaction.refuses(10, 1, marked));
        let claims = transaction.withdraw(&[20, 30]);
        let refused = ClaimedJob { id: 20, attempt: 3, keyed: false, job_queue_id: None, locked_at: marked };
        assert_eq!(claims, [refused], "marked by a claim that did not get it");
        assert!(
            !transaction.refuses(20, 3, marked) && !transaction.refuses(30, 2, marked),
            "whoever claims them now has to run them"
        );
        assert!(transaction.refuses(10, 1, marked));
        assert_eq!(kept(&transaction), (vec![10], vec![1]));
    }
}
