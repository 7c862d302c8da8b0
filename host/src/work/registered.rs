//! The tasks of one map with the ids that the database has given them.

use std::sync::Arc;

use super::held_job::HeldJob;
use crate::{
    queue::{Job, QueueError, Session, TaskIds},
    tasks::TaskMap,
};

/// Stands for a map that never is.
const UNKNOWN: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Registered {
    pub(super) map: u64,
    pub(super) tasks: TaskIds,
    /// Some task runs in this process and could end it.
    pub(super) in_this_process: bool,
}

impl Registered {
    /// No ids are known yet, or none any more.
    pub(super) fn unknown() -> Self {
        Self::nothing(UNKNOWN)
    }

    pub(super) fn are_known(&self) -> bool {
        self.map != UNKNOWN
    }

    /// As of a map without tasks.
    pub(super) fn nothing(map: u64) -> Self {
        Self { map, tasks: TaskIds::default(), in_this_process: false }
    }

    /// Asks for the ids, and enters the names that have none.
    pub(super) async fn register(session: &Session, map: &TaskMap) -> Result<Self, QueueError> {
        let names: Vec<&str> = map.identifiers().collect();
        Ok(Self {
            map: map.epoch(),
            tasks: session.task_ids(&names).await?,
            in_this_process: map.iter().any(|(_, task)| task.generation.runs_in_this_process()),
        })
    }

    /// The task with this id, for people.
    pub(super) fn name(&self, task_id: i32) -> Option<Arc<str>> {
        self.tasks.name(task_id).cloned()
    }

    /// A job that was claimed by these ids.
    pub(super) fn held(&self, job: Job) -> HeldJob {
        let task = self.tasks.name(job.task_id).expect("a claim brings jobs of these tasks alone");
        HeldJob { task: Arc::clone(task), job, map: self.map }
    }
}
