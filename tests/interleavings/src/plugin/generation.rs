//! A build whose jobs do nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::running_jobs::RunningJobs;
use crate::sync::watch;

/// Whether a build takes jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    Serving,
    Restarting,
}

/// What a build says of a task.
#[derive(Debug)]
pub struct TaskSpec {
    pub name: String,
    pub schedules: Vec<String>,
}

/// A build.
#[derive(Debug)]
pub struct Generation {
    tasks: Vec<TaskSpec>,
    availability: watch::Sender<Availability>,
    running: RunningJobs,
    /// Only for the test: nothing follows from it.
    ended: AtomicBool,
}

impl Generation {
    /// With one task.
    pub fn of(task: &str) -> Arc<Self> {
        Arc::new(Self {
            tasks: vec![TaskSpec { name: task.to_owned(), schedules: Vec::new() }],
            availability: watch::Sender::new(Availability::Serving),
            running: RunningJobs::default(),
            ended: AtomicBool::new(false),
        })
    }

    pub(crate) fn tasks(&self) -> &[TaskSpec] {
        &self.tasks
    }

    pub(crate) fn plugin(&self) -> &'static str {
        "plugin"
    }

    pub(crate) fn build(&self) -> u32 {
        0
    }

    pub(crate) fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.subscribe()
    }

    /// Its process is gone, or has come back.
    pub fn serves(&self, serves: bool) {
        self.availability.send_replace(if serves { Availability::Serving } else { Availability::Restarting });
    }

    /// Runs a job; `false`: it takes none any more.
    pub fn run(&self) -> bool {
        let Some(_running) = self.running.enter() else { return false };
        assert!(!self.ended.load(Ordering::SeqCst), "a job began on a build that had ended");
        shuttle::thread::yield_now();
        assert!(!self.ended.load(Ordering::SeqCst), "a build ended under its job");
        true
    }

    /// Takes no more jobs, waits for those that run, and ends.
    pub fn retire(&self) {
        self.running.close();
        shuttle::future::block_on(self.running.ended());
        self.ended.store(true, Ordering::SeqCst);
    }
}
