//! A pool at one moment, as plain values that can be shown or sent.

use std::sync::Arc;

use super::pool::{Pool, Takeover};
use crate::tasks::TaskMapSnapshot;

/// The jobs and slots of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSnapshot {
    /// `locked_by` of the jobs that it leases.
    pub owner: String,
    /// The maximum number of jobs running at once.
    pub slots: usize,
    /// Jobs that run.
    pub running: usize,
    /// Claimed jobs that wait for a slot.
    pub waiting: usize,
    /// Claimed jobs whose end is not stored yet; running and waiting ones included.
    pub unsettled: usize,
    /// The pool claims no more jobs.
    pub stopping: bool,
}

/// Whether other hosts see that a pool is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivenessSnapshot {
    pub lock: LivenessLock,
    /// The last takeover by this pool.
    pub last_takeover: Option<Arc<Takeover>>,
}

/// The state of a pool's liveness lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LivenessLock {
    /// `liveness` is off: other hosts release jobs after 4 hours.
    Off,
    /// Not held, or not known to be: the pool claims no jobs.
    Missing,
    Held,
    /// The connection does not keep locks, as behind some poolers: the pool works as with [`LivenessLock::Off`].
    Unavailable,
}

impl Pool {
    /// Its jobs and slots.
    pub fn status(&self) -> PoolSnapshot {
        let running = self.running();
        PoolSnapshot {
            owner: self.owner().to_owned(),
            slots: self.settings().concurrency,
            running: running.running(),
            waiting: running.waiting(),
            unsettled: running.unsettled(),
            stopping: self.identity().is_closing(),
        }
    }

    /// The tasks that its jobs run on.
    pub fn task_map(&self) -> TaskMapSnapshot {
        self.tasks().load().snapshot()
    }

    /// Whether others see that it is alive, and what it took over.
    pub fn liveness(&self) -> LivenessSnapshot {
        let identity = self.identity();
        let lock = match (self.settings().liveness, identity.is_alive()) {
            (false, _) => LivenessLock::Off,
            (true, false) => LivenessLock::Missing,
            (true, true) if identity.owner() == identity.guarded_owner() => LivenessLock::Held,
            (true, true) => LivenessLock::Unavailable,
        };
        LivenessSnapshot { lock, last_takeover: self.last_takeover() }
    }
}
