//! Counts the running jobs of a build, and closes it for new ones.

use crate::sync::{TaskTracker, TaskTrackerToken};

/// Each running job holds a token.
#[derive(Debug, Default)]
pub(super) struct RunningJobs(TaskTracker);

impl RunningJobs {
    /// Counts a job while its token exists; `None` after `close`. The token is taken before the check for `close`, so either
    /// `wait` sees the token, or this sees the close.
    pub(super) fn enter(&self) -> Option<TaskTrackerToken> {
        let token = self.0.token();
        (!self.0.is_closed()).then_some(token)
    }

    /// The number of running jobs.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Refuses new jobs.
    pub(super) fn close(&self) {
        self.0.close();
    }

    /// Waits for the end of the last one, after [`RunningJobs::close`].
    pub(super) async fn ended(&self) {
        self.0.wait().await;
    }
}
