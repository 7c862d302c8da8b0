//! The marked jobs that a pool has, and what it doubts of them.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::{Notify, RwLock, RwLockReadGuard};

use super::completion::Completion;
use crate::queue::{ClaimedJob, Job, QueueError};

/// The marked jobs that the pool has.
#[derive(Debug, Default)]
pub(super) struct ClaimedSet {
    /// By their ids, as they were claimed.
    jobs: Mutex<HashMap<i64, ClaimedJob>>,
    /// Releases whose answers were lost. Nobody sends them again: the pool may have claimed the job anew.
    doubtful: Mutex<Vec<Completion>>,
    /// Held for reading while a claim may mark jobs that are not known yet.
    pub(super) claiming: RwLock<()>,
    /// An answer or a connection was lost.
    pub(super) lost: Notify,
    /// How often that was, and how many of those losses have been searched for to the end.
    pub(super) losses: AtomicU64,
    pub(super) searched: AtomicU64,
}

impl ClaimedSet {
    /// To be held from before a claim that marks until its jobs are known.
    pub(super) async fn claiming(&self) -> RwLockReadGuard<'_, ()> {
        self.claiming.read().await
    }

    pub(super) fn add(&self, jobs: &[Job]) {
        self.jobs().extend(jobs.iter().map(|job| (job.id, ClaimedJob::of(job))));
    }

    /// Those that a transaction of the express lane has marked: their ids and attempts, and when they are.
    pub(super) fn add_express(&self, jobs: impl IntoIterator<Item = (i64, i16, SystemTime)>) {
        let claim = |(id, attempt, marked)| {
            (id, ClaimedJob { id, attempt, keyed: false, job_queue_id: None, locked_at: Some(marked) })
        };
        self.jobs().extend(jobs.into_iter().map(claim));
    }

    /// One that is locked in the pool's name, and that cannot be released.
    pub(super) fn keep(&self, claim: &ClaimedJob) {
        self.jobs().insert(claim.id, *claim);
    }

    /// What became of them is settled. Of a job that was claimed again, only the later claim counts.
    pub(super) fn remove(&self, completions: &[Completion]) {
        let mut jobs = self.jobs();
        for Completion { claim, .. } in completions {
            let same = |known: &ClaimedJob| {
                let times = known.locked_at.zip(claim.locked_at);
                known.attempt == claim.attempt && times.is_none_or(|(known, claimed)| known == claimed)
            };
            if jobs.get(&claim.id).is_some_and(same) {
                jobs.remove(&claim.id);
            }
        }
    }

    /// Takes the releases out, whose answers were lost.
    pub(super) fn doubt(&self, completions: &mut Vec<Completion>) {
        let doubtful: Vec<Completion> = completions.extract_if(.., |completion| completion.is_release()).collect();
        if !doubtful.is_empty() {
            self.remove(&doubtful);
            self.doubtful().extend(doubtful);
            self.suspect();
        }
    }

    /// A claim or a result failed.
    pub(super) fn failed(&self, error: &QueueError) {
        if error.connection_lost() {
            self.suspect();
        }
    }

    /// Something may be locked in the pool's name of which it does not know.
    pub(super) fn suspect(&self) {
        self.losses.fetch_add(1, Ordering::AcqRel);
        self.lost.notify_one();
    }

    /// Whether the pool has the job by the claim that has locked it.
    pub(super) fn has(&self, job: &ClaimedJob) -> bool {
        self.jobs().get(&job.id).is_some_and(|known| known.locked(job.locked_at))
    }

    /// The queues of the jobs that the pool has.
    pub(super) fn queues(&self) -> Vec<i32> {
        self.jobs().values().filter_map(|claim| claim.job_queue_id).collect()
    }

    pub(super) fn doubtful(&self) -> MutexGuard<'_, Vec<Completion>> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<i64, ClaimedJob>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
