//! What the database is to be told of jobs: gathered here until a line stores it.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::Level;

use crate::{
    events::{Event, Events, JobRun},
    queue::{CompletedJob, FailedJob, QueueError, ReturnedJob, Session, Settlement},
};

/// How a job ended.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) id: i64,
    pub(super) task_id: i32,
    pub(super) job_queue_id: Option<i32>,
    /// The task map by which it was claimed.
    pub(super) map: u64,
    pub(super) took: Duration,
    pub(super) kind: VerdictKind,
    /// For those who hear of it; a job that is done has one only if somebody does.
    pub(super) run: Option<Box<JobRun>>,
}

#[derive(Debug)]
pub(super) enum VerdictKind {
    Complete,
    /// `permanent` ends the job even if it has attempts left.
    Fail {
        message: String,
        permanent: bool,
        /// What the payload becomes, if it is to be another one.
        payload: Option<String>,
    },
    /// It never reached its task.
    Return {
        reason: &'static str,
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
    completed: Vec<CompletedJob>,
    failed: Vec<FailedJob>,
    returned: Vec<ReturnedJob>,
}

impl Results {
    pub(super) fn of(verdicts: &[Verdict]) -> Self {
        let mut results = Self::default();
        for verdict in verdicts {
            let (id, job_queue_id) = (verdict.id, verdict.job_queue_id);
            match &verdict.kind {
                VerdictKind::Complete => results.completed.push(CompletedJob { id, job_queue_id }),
                VerdictKind::Fail { .. } => results.failed.extend(verdict.failure()),
                VerdictKind::Return { .. } => results.returned.push(ReturnedJob { id, job_queue_id }),
            }
        }
        results
    }

    /// Stores them by up to three statements, which are independent of each other and sent together. Each may be repeated: it
    /// changes only what this owner still holds.
    pub(super) async fn store(&self, session: &Session, owner: &str) -> Result<(), QueueError> {
        let (completed, failed, returned) = tokio::join!(
            session.complete_jobs(owner, &self.completed),
            session.fail_jobs(owner, &self.failed),
            session.return_jobs(owner, &self.returned),
        );
        completed?;
        failed?;
        returned?;
        Ok(())
    }
}

impl Verdict {
    /// Of a job without a queue that is marked and was never run. Nobody hears of it.
    pub(super) fn never_begun(id: i64) -> Self {
        let kind = VerdictKind::Return { reason: "" };
        Self { id, task_id: 0, job_queue_id: None, map: 0, took: Duration::ZERO, kind, run: None }
    }

    /// The queue of the job is free once this is stored.
    pub(super) fn frees_a_queue(&self) -> bool {
        self.job_queue_id.is_some()
    }

    /// Adds it to what becomes of the jobs of its transaction.
    pub(super) fn settle(&self, settlement: &mut Settlement) {
        match &self.kind {
            VerdictKind::Complete => settlement.done.push(self.id),
            VerdictKind::Fail { .. } => settlement.failed.extend(self.failure()),
            // It stays as it was.
            VerdictKind::Return { .. } => {}
        }
    }

    fn failure(&self) -> Option<FailedJob> {
        let VerdictKind::Fail { message, permanent, payload } = &self.kind else { return None };
        Some(FailedJob {
            id: self.id,
            job_queue_id: self.job_queue_id,
            message: message.clone(),
            permanent: *permanent,
            payload: payload.clone(),
        })
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
            VerdictKind::Return { reason } => {
                return events.emit(Event::JobReturned { id: job.id, task: job.task, reason });
            }
        };
        if let Some(job) = again {
            events.emit(Event::JobCompleted { job, error });
        }
    }
}
