//! The jobs that run on a build, and whether more may begin.

use crate::sync::{TaskTracker, TaskTrackerToken};

/// Each running job holds a token.
#[derive(Debug, Default)]
pub(super) struct RunningJobs(TaskTracker);

impl RunningJobs {
    /// Counts a job in for as long as its token lives; `None` once no more may begin. The token comes before the look, so that
    /// whoever waits for the end either sees it, or was seen.
    pub(super) fn enter(&self) -> Option<TaskTrackerToken> {
        let token = self.0.token();
        (!self.0.is_closed()).then_some(token)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Lets no more begin.
    pub(super) fn close(&self) {
        self.0.close();
    }

    /// Waits for the end of the last one, after [`RunningJobs::close`].
    pub(super) async fn ended(&self) {
        self.0.wait().await;
    }
}
