//! What is done to jobs.

use std::{collections::HashSet, time::SystemTime};

use crate::queue::{Bisection, JobFilter, JobOrder, JobState, QueueError, Reschedule, RowAccess, Session, StoredJob};

/// What is done to jobs. Jobs that a worker holds are left alone, unless their lock is older than four hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Delete them as if they had run well.
    Complete,
    /// Make them fail for good, for this reason or the database's own.
    Fail(Option<String>),
    /// Change when and how often they are tried.
    Reschedule(Reschedule),
    /// Run those again that were tried before, with all of their attempts.
    Retry,
    /// Delete them.
    Remove,
}

/// Which jobs are to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one for each change")]
pub enum Selection {
    /// The jobs with these ids.
    Ids(Vec<i64>),
    /// All jobs that match.
    Matching(JobFilter),
}

/// Why a job was not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Left {
    /// It does not exist.
    Gone,
    /// A worker holds it, by the name in `locked_by`.
    Held { worker: Option<String>, since: Option<SystemTime> },
    /// A worker held it at the time of the change, and does not any more.
    Freed,
    /// It failed for good, and would have no attempts after the change either.
    Spent,
    /// It was not tried yet, so there is nothing to retry.
    Untried,
    /// The database refused the change, for this reason.
    Refused(String),
}

/// What became of a part of the jobs before `ended`, if an error ended the change.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) changed: Vec<StoredJob>,
    pub(super) refused: Vec<(i64, QueueError)>,
    pub(super) ended: Option<QueueError>,
}

impl Action {
    /// The access to rows that it takes.
    pub fn access(&self) -> RowAccess {
        match self {
            Self::Complete | Self::Remove => RowAccess::Delete,
            Self::Fail(_) | Self::Reschedule(_) | Self::Retry => RowAccess::Update,
        }
    }

    /// The selection without the jobs for which the action is not meant. Jobs that are selected by their ids all stay.
    #[must_use]
    pub fn narrow(&self, selection: Selection) -> Selection {
        match (self, selection) {
            (Self::Retry, Selection::Matching(filter)) if filter.states.is_empty() => {
                Selection::Matching(JobFilter { states: vec![JobState::Retrying, JobState::Failed], ..filter })
            }
            (_, selection) => selection,
        }
    }

    /// By one statement.
    pub(super) async fn apply(&self, session: &Session, ids: &[i64]) -> Result<Vec<StoredJob>, QueueError> {
        match self {
            Self::Complete => session.administer_complete(ids).await,
            Self::Fail(reason) => session.administer_fail(ids, reason.as_deref()).await,
            Self::Reschedule(change) => session.administer_reschedule(ids, change).await,
            Self::Retry => session.administer_retry(ids).await,
            Self::Remove => session.administer_remove(ids).await,
        }
    }

    /// All at once; if the database refuses that because of some of them, all but those.
    pub(super) async fn apply_around(&self, session: &Session, ids: &[i64]) -> Result<Applied, QueueError> {
        match self.apply_usefully(session, ids).await {
            Err(error) if error.is_refusal() => {}
            whole => return Ok(Applied { changed: whole?, ..Applied::default() }),
        }
        let mut changed = Vec::new();
        let mut ended = None;
        let mut parts = Bisection::new(ids.len(), usize::MAX);
        while let Some(part) = parts.next() {
            let ran = async {
                changed.extend(self.apply_usefully(session, &ids[part.clone()]).await?);
                Ok(())
            };
            if let Err(error) = parts.ran(part.clone(), ran.await) {
                ended = Some(error);
                break;
            }
        }
        let refused = parts.end().refused_of(ids).collect();
        Ok(Applied { changed, refused, ended })
    }

    /// Without the jobs for which it would change nothing that matters.
    async fn apply_usefully(&self, session: &Session, ids: &[i64]) -> Result<Vec<StoredJob>, QueueError> {
        let Self::Reschedule(change) = self else { return self.apply(session, ids).await };
        let spent = spent(session, ids, change).await?;
        let ids: Vec<i64> = ids.iter().copied().filter(|id| !spent.contains(id)).collect();
        self.apply(session, &ids).await
    }

    /// Why a job was not changed.
    pub(super) fn reason(&self, job: &StoredJob) -> Left {
        match (self, job.state) {
            (_, JobState::Running) => Left::Held { worker: job.locked_by.clone(), since: job.locked_at },
            (Self::Reschedule(_), JobState::Failed) => Left::Spent,
            (Self::Retry, _) if job.attempts == 0 => Left::Untried,
            _ => Left::Freed,
        }
    }
}

/// Those of the jobs that failed for good and would have no attempt left after the change either.
async fn spent(session: &Session, ids: &[i64], change: &Reschedule) -> Result<HashSet<i64>, QueueError> {
    let filter = JobFilter { states: vec![JobState::Failed], ..JobFilter::ids(ids) };
    let failed = session.list_jobs(&filter, JobOrder::Oldest, ids.len()).await?;
    let stays =
        |job: &&StoredJob| change.attempts.unwrap_or(job.attempts) >= change.max_attempts.unwrap_or(job.max_attempts);
    Ok(failed.iter().filter(stays).map(|job| job.id).collect())
}
