//! What the database is to be told of jobs: gathered here until a line stores it.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::Level;

use crate::{
    events::{Event, Events, JobRun},
    queue::{ClaimedJob, CrashRecord, FailedJob, QueueError, Session, Settlement},
};

/// How a job ended.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) claim: ClaimedJob,
    pub(super) task_id: i32,
    /// The task map by which it was claimed.
    pub(super) map: u64,
    pub(super) took: Duration,
    pub(super) kind: VerdictKind,
    /// For those who hear of it; a job that is done has one only if somebody does.
    pub(super) run: Option<Box<JobRun>>,
    /// It was sent before, and perhaps stored without anybody hearing so.
    pub(super) repeated: bool,
}

#[derive(Debug)]
pub(super) enum VerdictKind {
    Complete,
    /// `permanent` ends the job even if it has attempts left.
    Fail {
        message: String,
        permanent: bool,
        /// How many attempts the task allows, if fewer than the job has.
        max_attempts: Option<i16>,
        /// What the payload becomes, if it is to be another one.
        payload: Option<String>,
        /// A process crashed that ran it.
        crashes: Option<CrashRecord>,
    },
    /// It never reached its task.
    Return {
        reason: &'static str,
        /// This pool may have it again as soon as it has a slot.
        at_once: bool,
    },
}

/// Verdicts of marked jobs that no line has taken yet.
#[derive(Debug)]
pub(super) struct Verdicts {
    complete_delay: Duration,
    fail_delay: Duration,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    verdicts: Vec<Verdict>,
    /// When the first of them is to be stored.
    due: Option<Instant>,
}

impl Verdicts {
    /// Those that are done, and those that failed, wait so long for others.
    pub(super) fn new(complete_delay: Duration, fail_delay: Duration) -> Self {
        Self { complete_delay, fail_delay, waiting: Mutex::default() }
    }

    pub(super) fn add(&self, verdict: Verdict) {
        self.add_all([verdict]);
    }

    pub(super) fn add_all(&self, verdicts: impl IntoIterator<Item = Verdict>) {
        let mut waiting = self.waiting();
        for verdict in verdicts {
            let delay = match verdict.kind {
                VerdictKind::Complete => self.complete_delay,
                VerdictKind::Fail { .. } => self.fail_delay,
                VerdictKind::Return { .. } => Duration::ZERO,
            };
            if !delay.is_zero() || waiting.due.is_some() {
                let due = Instant::now() + delay;
                waiting.due = Some(waiting.due.map_or(due, |sooner| sooner.min(due)));
            }
            waiting.verdicts.push(verdict);
        }
    }

    /// Those that were sent, and of which it is not known whether they arrived.
    pub(super) fn add_again(&self, mut verdicts: Vec<Verdict>) {
        verdicts.iter_mut().for_each(|verdict| verdict.repeated = true);
        self.add_all(verdicts);
    }

    /// The first ones, at most `most`, if they need not wait. With `all`, nothing waits any more.
    pub(super) fn take(&self, most: usize, all: bool) -> Vec<Verdict> {
        let mut waiting = self.waiting();
        if !all && waiting.due.is_some_and(|due| due > Instant::now()) {
            return Vec::new();
        }
        if waiting.verdicts.len() > most {
            return waiting.verdicts.drain(..most).collect();
        }
        waiting.due = None;
        mem::take(&mut waiting.verdicts)
    }

    /// When those that wait for others are to be stored.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting().due
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Verdicts of marked jobs as the statements take them.
#[derive(Debug, Default)]
pub(super) struct Results {
    completed: Vec<ClaimedJob>,
    failed: Vec<FailedJob>,
    returned: Vec<ClaimedJob>,
}

impl Results {
    pub(super) fn of(verdicts: &[Verdict]) -> Self {
        let mut results = Self::default();
        for verdict in verdicts {
            match &verdict.kind {
                VerdictKind::Complete => results.completed.push(verdict.claim),
                VerdictKind::Fail { .. } => results.failed.extend(verdict.failure()),
                VerdictKind::Return { .. } => results.returned.push(verdict.claim),
            }
        }
        results
    }

    /// Stores them by up to three statements, which are independent of each other and sent together. Each may be repeated: it
    /// changes only what this owner still holds by these claims. Gives the ids of the jobs that it does not hold.
    pub(super) async fn store(&self, session: &Session, owner: &str) -> Result<HashSet<i64>, QueueError> {
        let (completed, failed, returned) = tokio::join!(
            session.complete_jobs(owner, &self.completed),
            session.fail_jobs(owner, &self.failed),
            session.return_jobs(owner, &self.returned),
        );
        let (completed, failed, returned) = (completed?, failed?, returned?);
        let stored = completed.len() + failed.len() + returned.len();
        if stored == self.completed.len() + self.failed.len() + self.returned.len() {
            return Ok(HashSet::new());
        }
        let known = completed.into_iter().chain(failed.into_iter().map(|failure| failure.id)).chain(returned);
        let known: HashSet<i64> = known.collect();
        let failed = self.failed.iter().map(|failed| failed.claim.id);
        let all = self.completed.iter().chain(&self.returned).map(|claim| claim.id).chain(failed);
        Ok(all.filter(|id| !known.contains(id)).collect())
    }
}

impl Verdict {
    /// Of a job that is marked and was never run. Nobody hears of it.
    pub(super) fn never_begun(claim: ClaimedJob) -> Self {
        let kind = VerdictKind::Return { reason: "", at_once: true };
        Self { claim, task_id: 0, map: 0, took: Duration::ZERO, kind, run: None, repeated: false }
    }

    /// The job stays as it was.
    pub(super) fn is_return(&self) -> bool {
        matches!(self.kind, VerdictKind::Return { .. })
    }

    /// The job can be claimed by this pool once this is stored.
    pub(super) fn comes_back(&self) -> bool {
        matches!(self.kind, VerdictKind::Return { at_once: true, .. })
    }

    /// The queue of the job is free once this is stored.
    pub(super) fn frees_a_queue(&self) -> bool {
        self.claim.job_queue_id.is_some()
    }

    /// Adds it to what becomes of the jobs of its transaction.
    pub(super) fn settle(&self, settlement: &mut Settlement) {
        match &self.kind {
            VerdictKind::Complete => settlement.done.push(self.claim.id),
            VerdictKind::Fail { .. } => settlement.failed.extend(self.failure()),
            // It stays as it was.
            VerdictKind::Return { .. } => {}
        }
    }

    fn failure(&self) -> Option<FailedJob> {
        let VerdictKind::Fail { message, permanent, max_attempts, payload, crashes } = &self.kind else { return None };
        Some(FailedJob {
            claim: self.claim,
            message: message.clone(),
            permanent: *permanent,
            max_attempts: *max_attempts,
            payload: payload.clone(),
            crashes: *crashes,
        })
    }

    /// Says that it changed nothing, because the job was not this pool's any more.
    pub(super) fn announce_late(self, events: &Events) {
        events.emit(Event::VerdictOverruled { id: self.claim.id, task: self.run.map(|run| run.task) });
    }

    /// Says how the job ended.
    pub(super) fn announce(self, events: &Events) {
        let Self { took, kind, run, .. } = self;
        // Nothing is made for events that nobody hears.
        let Some(job) = run.map(|run| *run) else { return };
        let again = events.is_heard(Level::TRACE).then(|| job.clone());
        let error = match kind {
            VerdictKind::Complete => {
                events.emit(Event::JobDone { job, took });
                None
            }
            VerdictKind::Fail { message, permanent, .. } => {
                let retry = !permanent && job.attempt < job.max_attempts;
                let error = again.is_some().then(|| message.clone());
                events.emit(Event::JobFailed { job, message, retry, took });
                if let (false, Some(job), Some(message)) = (retry, &again, &error) {
                    events.emit(Event::JobFailedForGood { job: job.clone(), message: message.clone() });
                }
                error
            }
            VerdictKind::Return { reason, .. } => {
                return events.emit(Event::JobReturned { id: job.id, task: job.task, reason });
            }
        };
        if let Some(job) = again {
            events.emit(Event::JobCompleted { job, error });
        }
    }
}
