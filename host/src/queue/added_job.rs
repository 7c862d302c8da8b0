//! A job as it was stored.

use std::ops::Deref;

use super::Job;

/// A job as it was stored, with the name of its task. It has the fields of [`Job`].
#[derive(Debug, Clone, PartialEq)]
pub struct AddedJob {
    /// The task's name. That which was asked for, unless a job under the same key was to stay as it is.
    pub task: String,
    pub job: Job,
}

impl Deref for AddedJob {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}
