//! Results that the database does not store.
//!
//! Such a job stays locked in this pool's name, with the reason in `last_error` if the database allows that, so that it is not run
//! again. Its queue is freed. It counts as settled: no stop waits for it.

use std::{slice, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    set_aside::{MOST_RESULTS, RefusedResult, Wait},
    unless_refused,
};
use crate::{
    events::{Event, LeftResult, Refusal},
    queue::{Bisection, ClaimedJob, FailedJob, QueueError, Session},
    work::{
        completion::{Batch, Completion, End},
        pool::Pool,
    },
};

/// How long each of the last steps of a pool may take.
const LAST_STEP: Duration = Duration::from_secs(3);

impl Pool {
    /// Whether so many results are held back that no more jobs are to run.
    pub(in crate::work) fn holds_too_many_results(&self) -> bool {
        self.refused().results.are_too_many()
    }

    /// What became of a job is refused. The job is marked.
    pub(in crate::work) fn hold_result(&self, completion: Completion, error: &QueueError) {
        let (task, reason, wait) = (self.registered().name(completion.task_id), error.reason(), Wait::first());
        self.events().emit(Event::Refused(Refusal::Result {
            id: completion.claim.id,
            task: task.clone(),
            error: reason.clone(),
            retry_in: wait.length,
            repeated: false,
        }));
        let count = {
            let mut held = self.refused().results.held();
            held.push(RefusedResult { completion, task, reason: reason.clone(), wait, noted: false });
            held.len()
        };
        if count == MOST_RESULTS {
            self.events().emit(Event::Refused(Refusal::TooManyResults { count, error: reason }));
            if self.identity().works_once() {
                self.identity().close();
            }
        }
        self.running().settled(1);
        self.refused().added.notify_one();
        // A pool that ends when nothing is left may have waited for just this one.
        self.nudge();
    }

    /// What became of a job is refused, and the job cannot be marked either: anybody may claim it.
    pub(in crate::work) fn leave_result(&self, completion: &Completion, error: &QueueError) {
        let (id, task, error) = (completion.claim.id, self.registered().name(completion.task_id), error.reason());
        self.events().emit(Event::Refused(Refusal::ResultLeft { id, task, error, left: LeftResult::Available }));
        self.running().settled(1);
        self.nudge();
    }

    /// Writes the reasons to the jobs, as far as the database allows that, and frees their queues.
    pub(super) async fn note_refused_results(&self, session: &Session) -> Result<(), QueueError> {
        let results = &self.refused().results;
        loop {
            let next =
                results.held().iter().find(|refused| !refused.noted).map(|new| (new.completion.claim, new.note()));
            let Some((claim, note)) = next else { return Ok(()) };
            unless_refused(session.note_refused_result(self.owner(), &claim, &note).await)?;
            if claim.job_queue_id.is_some() {
                unless_refused(session.free_queue(self.owner(), &claim).await)?;
                self.nudge_for_marked();
            }
            results.change(&claim, |refused| {
                refused.noted = true;
                // Whoever has the queue when this is stored goes on having it.
                refused.completion.claim.job_queue_id = None;
            });
        }
    }

    /// Tries those once more that are `due`, one by one.
    pub(super) async fn store_refused_results(
        &self,
        session: &Session,
        due: impl Fn(&Wait) -> bool,
    ) -> Result<(), QueueError> {
        let results = &self.refused().results;
        let due: Vec<(ClaimedJob, Batch)> = results
            .held()
            .iter()
            .filter(|refused| refused.noted && due(&refused.wait))
            .map(|refused| (refused.completion.claim, Batch::of(slice::from_ref(&refused.completion))))
            .collect();
        for (claim, result) in due {
            match result.store(session, self.owner()).await {
                Ok(late) => {
                    if let Some(RefusedResult { completion, task, .. }) = results.remove(&claim) {
                        self.stored_after_all(completion, task, !late.is_empty());
                    }
                }
                Err(error) if error.is_refusal() => {
                    let again = results.change(&claim, |refused| {
                        refused.wait = refused.wait.again();
                        refused.reason = error.reason();
                        let (task, retry_in) = (refused.task.clone(), refused.wait.length);
                        Refusal::Result { id: claim.id, task, error: error.reason(), retry_in, repeated: true }
                    });
                    again.into_iter().for_each(|again| self.events().emit(Event::Refused(again)));
                }
                Err(error) => {
                    // It may be stored.
                    results.change(&claim, |refused| refused.completion.repeated = true);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn stored_after_all(&self, completion: Completion, task: Option<Arc<str>>, is_late: bool) {
        self.claimed_set().remove(slice::from_ref(&completion));
        self.nudge();
        if is_late && !completion.repeated {
            // The job is not this pool's any more, so nothing was stored.
            return completion.announce_late(self.events());
        }
        self.events().emit(Event::Refused(Refusal::ResultStored { id: completion.claim.id, task }));
        completion.announce(self.events());
    }

    /// For the end: tries once more, and sees to it that what was completed is not run again. What then remains is said.
    pub(in crate::work) async fn leave_refused_results(&self) {
        if self.refused().results.is_empty() {
            return;
        }
        let _ = timeout(LAST_STEP, self.store_the_last()).await;
        let _ = timeout(LAST_STEP, self.fail_the_completed()).await;
        let left = std::mem::take(&mut *self.refused().results.held());
        left.into_iter().for_each(|refused| self.events().emit(refused.left(LeftResult::Locked)));
    }

    async fn store_the_last(&self) -> Result<(), QueueError> {
        let session = self.database().session().await?;
        self.note_refused_results(&session).await?;
        self.store_refused_results(&session, |_| true).await
    }

    /// Makes those fail for good that were completed.
    async fn fail_the_completed(&self) -> Result<(), QueueError> {
        let results = &self.refused().results;
        let failed = |refused: &RefusedResult| FailedJob {
            claim: refused.completion.claim,
            message: refused.note(),
            permanent: true,
            max_attempts: None,
            payload: None,
            crashes: None,
        };
        let done: Vec<FailedJob> = results
            .held()
            .iter()
            .filter(|refused| matches!(refused.completion.end, End::Complete))
            .map(failed)
            .collect();
        let session = self.database().session().await?;
        let mut parts = Bisection::new(done.len(), usize::MAX);
        while let Some(part) = parts.next() {
            let stored = session.fail_jobs(self.owner(), &done[part.clone()]).await;
            let stored = stored.map(|stored| {
                for FailedJob { claim, .. } in &done[part.clone()] {
                    let Some(refused) = results.remove(claim) else { continue };
                    if stored.iter().any(|stored| stored.id == claim.id) {
                        self.events().emit(refused.left(LeftResult::Failed));
                    } else {
                        refused.completion.announce_late(self.events());
                    }
                }
            });
            parts.ran(part, stored)?;
        }
        Ok(())
    }
}
