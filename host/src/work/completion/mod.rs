//! How a job ended: the one form in which that goes from its slot to the database and to events.

mod apart;
mod pending;
mod store;

use std::time::Duration;

use tracing::Level;

pub(super) use self::{
    apart::{StoredApart, store_apart},
    pending::PendingCompletions,
    store::Batch,
};
use super::held_job::HeldJob;
use crate::{
    events::{Event, Events, JobRun},
    queue::{ClaimedJob, CrashRecord},
};

/// The end of a job that was claimed.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) claim: ClaimedJob,
    pub(super) task_id: i32,
    /// The task map by which it was claimed.
    pub(super) map: u64,
    pub(super) took: Duration,
    pub(super) end: End,
    /// For those who hear of it; a job that is done has one only if somebody does.
    run: Option<Box<JobRun>>,
    /// It was sent before, and perhaps stored without anybody hearing so.
    pub(super) repeated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
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
    Release {
        reason: &'static str,
        /// This pool may have it again as soon as it has a slot.
        at_once: bool,
    },
}

impl Completion {
    /// Of a job that took a slot so long. `run` is for those who hear of it.
    pub(super) fn of(held: &HeldJob, took: Duration, end: End, run: Option<Box<JobRun>>) -> Self {
        let (claim, task_id) = (ClaimedJob::of(&held.job), held.job.task_id);
        Self { claim, task_id, map: held.map, took, end, run, repeated: false }
    }

    /// Of a job that is marked and was never run. Nobody hears of it.
    pub(super) fn never_begun(claim: ClaimedJob) -> Self {
        let end = End::Release { reason: "", at_once: true };
        Self { claim, task_id: 0, map: 0, took: Duration::ZERO, end, run: None, repeated: false }
    }

    /// The same, of a job that is held by another claim.
    pub(super) fn by(self, claim: ClaimedJob) -> Self {
        Self { claim, ..self }
    }

    /// One that says that a job is done, to test with.
    #[cfg(test)]
    pub(super) fn sample(claim: ClaimedJob, task_id: i32, map: u64, took: Duration) -> Self {
        Self { claim, task_id, map, took, end: End::Complete, run: None, repeated: false }
    }

    /// The job stays as it was.
    pub(super) fn is_release(&self) -> bool {
        matches!(self.end, End::Release { .. })
    }

    /// The job can be claimed by this pool once this is stored.
    pub(super) fn comes_back(&self) -> bool {
        matches!(self.end, End::Release { at_once: true, .. })
    }

    /// The queue of the job is free once this is stored.
    pub(super) fn frees_a_queue(&self) -> bool {
        self.claim.job_queue_id.is_some()
    }

    /// Says that it changed nothing, because the job was not this pool's any more.
    pub(super) fn announce_late(self, events: &Events) {
        events.emit(Event::VerdictOverruled { id: self.claim.id, task: self.run.map(|run| run.task) });
    }

    /// Says how the job ended.
    pub(super) fn announce(self, events: &Events) {
        let Self { took, end, run, .. } = self;
        // Nothing is made for events that nobody hears.
        let Some(job) = run.map(|run| *run) else { return };
        let again = events.is_heard(Level::TRACE).then(|| job.clone());
        let error = match end {
            End::Complete => {
                events.emit(Event::JobDone { job, took });
                None
            }
            End::Fail { message, permanent, .. } => {
                let retry = !permanent && job.attempt < job.max_attempts;
                let error = again.is_some().then(|| message.clone());
                events.emit(Event::JobFailed { job, message, retry, took });
                if let (false, Some(job), Some(message)) = (retry, &again, &error) {
                    events.emit(Event::JobFailedForGood { job: job.clone(), message: message.clone() });
                }
                error
            }
            End::Release { reason, .. } => {
                return events.emit(Event::JobReturned { id: job.id, task: job.task, reason });
            }
        };
        if let Some(job) = again {
            events.emit(Event::JobCompleted { job, error });
        }
    }
}
