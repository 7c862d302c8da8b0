//! Completions as the statements of both lanes take them.

use std::collections::HashSet;

use super::{Completion, End};
use crate::queue::{ClaimedJob, FailedJob, QueueError, Session, Settlement};

#[derive(Debug, Default)]
pub(in crate::work) struct Batch {
    completed: Vec<ClaimedJob>,
    failed: Vec<FailedJob>,
    released: Vec<ClaimedJob>,
}

impl Batch {
    pub(in crate::work) fn of(completions: &[Completion]) -> Self {
        let mut batch = Self::default();
        for Completion { claim, end, .. } in completions {
            match end {
                End::Complete => batch.completed.push(*claim),
                End::Fail { message, permanent, max_attempts, payload, crashes } => batch.failed.push(FailedJob {
                    claim: *claim,
                    message: message.clone(),
                    permanent: *permanent,
                    max_attempts: *max_attempts,
                    payload: payload.clone(),
                    crashes: *crashes,
                }),
                End::Release { .. } => batch.released.push(*claim),
            }
        }
        batch
    }

    /// Of marked jobs: up to three statements, which are independent of each other and sent together. Each may be repeated: it
    /// changes only what this owner still holds by these claims. Gives the ids of the jobs that it does not hold.
    pub(in crate::work) async fn store(&self, session: &Session, owner: &str) -> Result<HashSet<i64>, QueueError> {
        let (completed, failed, released) = tokio::join!(
            session.complete_jobs(owner, &self.completed),
            session.fail_jobs(owner, &self.failed),
            session.return_jobs(owner, &self.released),
        );
        let (completed, failed, released) = (completed?, failed?, released?);
        let stored = completed.len() + failed.len() + released.len();
        if stored == self.completed.len() + self.failed.len() + self.released.len() {
            return Ok(HashSet::new());
        }
        let known = completed.into_iter().chain(failed.into_iter().map(|failure| failure.id)).chain(released);
        let known: HashSet<i64> = known.collect();
        let failed = self.failed.iter().map(|failed| failed.claim.id);
        let all = self.completed.iter().chain(&self.released).map(|claim| claim.id).chain(failed);
        Ok(all.filter(|id| !known.contains(id)).collect())
    }

    /// Of the jobs of a transaction, of which `marked` go on in the marked lane. Those that are released stay as they were.
    pub(in crate::work) fn settlement(self, marked: Vec<i64>) -> Settlement {
        let done = self.completed.iter().map(|claim| claim.id).collect();
        Settlement { done, failed: self.failed, marked, in_ascii: false }
    }
}
