//! A claimed job with what it was claimed for.

use std::{sync::Arc, time::SystemTime};

use crate::{events::JobRun, plugin::BuildId, queue::Job, tasks::Task};

/// A claimed job and what it was claimed for.
#[derive(Debug)]
pub(super) struct HeldJob {
    pub(super) job: Job,
    pub(super) task: Arc<str>,
    /// The task map by which it was claimed.
    pub(super) map: u64,
}

impl HeldJob {
    /// The job's run, by its task's current build.
    pub(super) fn describe(&self, worker: &Arc<str>, task: Option<&Task>) -> JobRun {
        JobRun {
            worker: Arc::clone(worker),
            id: self.job.id,
            task: Arc::clone(&self.task),
            attempt: self.job.attempts,
            max_attempts: task.map_or(self.job.max_attempts, |task| self.max_attempts(task)),
            plugin: task.map_or_else(Arc::default, |task| task.generation.shared_name()),
            build: task.map_or(BuildId([0; 32]), |task| task.generation.build()),
        }
    }

    /// How often it may be tried: the task may allow fewer attempts than the job was added with.
    pub(super) fn max_attempts(&self, task: &Task) -> i16 {
        let of_task = task.spec().max_attempts.map_or(i16::MAX, |of_task| i16::try_from(of_task).unwrap_or(i16::MAX));
        self.job.max_attempts.min(of_task)
    }

    /// Its place among the waiting jobs.
    pub(super) fn order(&self) -> (i16, SystemTime, i64) {
        (self.job.priority, self.job.run_at, self.job.id)
    }
}
