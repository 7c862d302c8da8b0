//! What jobs are in a database before a contender is let at them.

/// Jobs of one task, numbered from 0 in their payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Workload {
    pub task: Task,
    pub jobs: u32,
    /// In how many named queues they are; 0: in none.
    pub queues: u32,
    /// Further jobs before them in two queues that somebody else holds for good.
    pub stuck: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Nothing.
    Noop,
    /// Sleeps for a millisecond.
    Sleep,
    /// One in ten fails. Those are not tried again, as there are otherwise more jobs for those contenders that are slow
    /// enough to meet them again.
    Fail,
}

impl Task {
    pub fn name(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Sleep => "sleep",
            Self::Fail => "fail",
        }
    }

    pub fn max_attempts(self) -> i16 {
        match self {
            Self::Fail => 1,
            Self::Noop | Self::Sleep => 25,
        }
    }
}

impl Workload {
    pub fn plain(task: Task, jobs: u32) -> Self {
        Self { task, jobs, queues: 0, stuck: 0 }
    }
}
