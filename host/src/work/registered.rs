//! The database's numbers for the tasks of one map.
//!
//! They change under a living host when somebody removes the tasks that have no jobs (`GC_TASK_IDENTIFIERS`): the next job of
//! such a task brings a new number.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::held::HeldJob;
use crate::{
    queue::{Job, QueueError, Session},
    tasks::TaskMap,
};

/// A host that finds nothing asks again this soon whether its tasks still have the numbers that it knows, and one that is
/// busy after [`RECHECK_BUSY`].
const RECHECK_IDLE: Duration = Duration::from_secs(1);
const RECHECK_BUSY: Duration = Duration::from_secs(60);
/// And in any case not before this many times as long as the asking took.
const RECHECK_SHARE: u32 = 50;

#[derive(Debug)]
pub(super) struct Registered {
    pub(super) map: u64,
    pub(super) ids: Vec<i32>,
    names: HashMap<i32, Arc<str>>,
    /// Some task runs in this process and could end it.
    pub(super) in_this_process: bool,
    asked: Instant,
    took: Duration,
}

impl Registered {
    /// What is known of the numbers of this map is nothing.
    pub(super) fn unknown() -> Self {
        Self::nothing(u64::MAX)
    }

    /// As of a map without tasks.
    pub(super) fn nothing(map: u64) -> Self {
        Self {
            map,
            ids: Vec::new(),
            names: HashMap::new(),
            in_this_process: false,
            asked: Instant::now(),
            took: Duration::ZERO,
        }
    }

    /// Asks for the numbers, and enters the names that have none.
    pub(super) async fn register(session: &Session, map: &TaskMap) -> Result<Self, QueueError> {
        let asked = Instant::now();
        let names: Vec<&str> = map.identifiers().collect();
        let by_name = session.task_ids(&names).await?;
        Ok(Self {
            map: map.epoch(),
            ids: by_name.values().copied().collect(),
            names: by_name.into_iter().map(|(name, id)| (id, Arc::from(name))).collect(),
            in_this_process: map.iter().any(|(_, task)| task.generation.runs_in_this_process()),
            asked,
            took: asked.elapsed(),
        })
    }

    pub(super) fn may_be_outdated(&self, idle: bool) -> bool {
        let rest = if idle { RECHECK_IDLE } else { RECHECK_BUSY };
        self.asked.elapsed() >= rest.max(self.took * RECHECK_SHARE)
    }

    /// Asks whether the numbers are still right, by one statement that changes nothing.
    pub(super) async fn is_right(&self, session: &Session) -> Result<bool, QueueError> {
        let names: Vec<&str> = self.names.values().map(|name| &**name).collect();
        let known = session.known_task_ids(&names).await?;
        Ok(self.names.iter().all(|(id, name)| known.get(&**name) == Some(id)))
    }

    /// The same, asked for just now.
    pub(super) fn confirmed(&self, asked: Instant) -> Self {
        Self {
            map: self.map,
            ids: self.ids.clone(),
            names: self.names.clone(),
            in_this_process: self.in_this_process,
            asked,
            took: asked.elapsed(),
        }
    }

    /// A job that was claimed by these numbers.
    pub(super) fn held(&self, job: Job) -> HeldJob {
        HeldJob { task: Arc::clone(&self.names[&job.task_id]), job, map: self.map }
    }
}
