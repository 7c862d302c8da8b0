//! Changes jobs, however many are meant: in batches that bound the memory and the length of transactions.

use std::collections::HashSet;

use super::{
    super::{
        CliError, Ending,
        database::{Connected, explain},
        moment::age,
        print,
        run_at::RunAt,
    },
    filter::{Target, tell_unknown_tasks},
    report::{Left, Report},
};
use crate::{
    config::Layer,
    queue::{
        Bisection, Database, FoundJob, JobFilter, JobOrder, JobState, QueueError, Reschedule, RowAccess, Session,
        StoredJob,
    },
};

/// How many jobs one statement changes.
const BATCH: usize = 1_000;
/// How many jobs are looked at together for those that are meant. None of them is in memory, except its id.
const WINDOW: usize = 20_000;
/// How much text the jobs of one statement have, because it gives them back. A single job may have more.
const BATCH_BYTES: usize = 8 << 20;

/// What is done to jobs.
#[derive(Debug)]
pub(super) enum Change {
    Complete,
    Fail(Option<String>),
    /// With the time apart, for which the database may have to be asked.
    Reschedule(Reschedule, Option<RunAt>),
    Retry,
    Remove,
}

impl Change {
    pub(super) fn verb(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Fail(_) => "fail",
            Self::Reschedule(..) => "reschedule",
            Self::Retry => "retry",
            Self::Remove => "remove",
        }
    }

    pub(super) fn done(&self) -> &'static str {
        match self {
            Self::Complete => "completed",
            Self::Fail(_) => "failed",
            Self::Reschedule(..) => "rescheduled",
            Self::Retry => "retried",
            Self::Remove => "removed",
        }
    }

    fn access(&self) -> RowAccess {
        match self {
            Self::Complete | Self::Remove => RowAccess::Delete,
            Self::Fail(_) | Self::Reschedule(..) | Self::Retry => RowAccess::Update,
        }
    }

    /// Those of the jobs that a person can mean who has not named them one by one.
    fn narrow(&self, filter: JobFilter) -> JobFilter {
        match self {
            Self::Retry if filter.states.is_empty() => {
                JobFilter { states: vec![JobState::Retrying, JobState::Failed], ..filter }
            }
            _ => filter,
        }
    }

    /// All at once; if the database refuses that because of some of them, all but those, which come with what it says.
    async fn apply_around(
        &self,
        session: &Session,
        ids: &[i64],
    ) -> Result<(Vec<StoredJob>, Vec<(i64, QueueError)>), QueueError> {
        match self.apply_to(session, ids).await {
            Err(error) if error.is_refusal() => {}
            whole => return Ok((whole?, Vec::new())),
        }
        let mut done = Vec::new();
        let mut parts = Bisection::new(ids.len(), usize::MAX);
        while let Some(part) = parts.next() {
            let ran = async {
                done.extend(self.apply_to(session, &ids[part.clone()]).await?);
                Ok(())
            };
            parts.ran(part.clone(), ran.await)?;
        }
        let apart = parts.end();
        let refused = apart.refused_of(ids).collect();
        Ok((done, refused))
    }

    async fn apply_to(&self, session: &Session, ids: &[i64]) -> Result<Vec<StoredJob>, QueueError> {
        match self {
            Self::Complete => session.administer_complete(ids).await,
            Self::Fail(reason) => session.administer_fail(ids, reason.as_deref()).await,
            Self::Reschedule(change, _) => {
                let spent = spent(session, ids, change).await?;
                let ids: Vec<i64> = ids.iter().copied().filter(|id| !spent.contains(id)).collect();
                session.administer_reschedule(&ids, change).await
            }
            Self::Retry => session.administer_retry(ids).await,
            Self::Remove => session.administer_remove(ids).await,
        }
    }

    /// Why a job was not changed.
    fn reason(&self, job: &StoredJob) -> Left {
        match (self, job.state) {
            (_, JobState::Running) => Left::Held(holder(job).into()),
            (Self::Reschedule(..), JobState::Failed) => Left::Spent,
            (Self::Retry, _) if job.attempts == 0 => Left::Untried,
            _ => Left::Freed,
        }
    }
}

/// Those of the jobs that failed for good and would have no attempt left after the change either: it would change nothing that
/// matters.
async fn spent(session: &Session, ids: &[i64], change: &Reschedule) -> Result<HashSet<i64>, QueueError> {
    let filter = JobFilter { states: vec![JobState::Failed], ..JobFilter::ids(ids) };
    let failed = session.list_jobs(&filter, JobOrder::Oldest, ids.len()).await?;
    let stays =
        |job: &&StoredJob| change.attempts.unwrap_or(job.attempts) >= change.max_attempts.unwrap_or(job.max_attempts);
    Ok(failed.iter().filter(stays).map(|job| job.id).collect())
}

/// Changes the jobs that are meant, and says what was done and what was not.
pub(super) async fn apply(
    target: &Target,
    mut change: Change,
    as_json: bool,
    settings: &Layer,
) -> Result<Ending, CliError> {
    let filter = target.filter()?.map(|filter| change.narrow(filter));
    let connected = Connected::find(settings).await?;
    let (database, session) = connected.open(change.access()).await?;
    // Jobs that are added from now on are not meant, so that this ends.
    let last = session.last_job_id().await.map_err(explain(&database))?;
    if let Some(filter) = &filter {
        tell_unknown_tasks(&session, filter).await;
    }
    if let Some(filter) = filter.as_ref().filter(|_| target.asks()) {
        let counts = session.count_jobs(filter).await.map_err(explain(&database))?;
        if !target.confirm(change.verb(), counts.iter().map(|count| count.jobs).sum())? {
            print("nothing was changed\n")?;
            return Ok(Ending::Refusals);
        }
    }
    if let Change::Reschedule(change, Some(run_at)) = &mut change {
        change.run_at = Some(run_at.by_clock_of(settings, &database, &session).await?);
    }
    let report = Report::begin(change.done(), filter.is_some(), as_json)?;
    let mut work = Work { session: &session, database: &database, change: &change, last, report };
    let worked = match &filter {
        Some(filter) => work.all(filter).await,
        None => work.each(&target.ids).await,
    };
    match worked {
        Ok(()) => work.report.end(),
        Err(error) => {
            work.report.interrupted();
            Err(error)
        }
    }
}

/// A change that is under way.
struct Work<'a> {
    session: &'a Session,
    database: &'a Database,
    change: &'a Change,
    /// The largest id that is meant.
    last: i64,
    report: Report,
}

impl Work<'_> {
    /// Changes the jobs with these ids.
    async fn each(&mut self, ids: &[i64]) -> Result<(), CliError> {
        let mut found = HashSet::new();
        for ids in ids.chunks(BATCH) {
            found.extend(self.between(&JobFilter::ids(ids), i64::MIN, self.last).await?);
        }
        for id in ids {
            // Once, however often it was given.
            if found.insert(*id) {
                self.report.left(*id, Left::Gone);
            }
        }
        Ok(())
    }

    /// Changes all jobs that the filter means, each once, in the order of their ids.
    async fn all(&mut self, filter: &JobFilter) -> Result<(), CliError> {
        let mut after = i64::MIN;
        loop {
            let end = self.session.end_of_window(after, self.last, WINDOW).await.map_err(explain(self.database))?;
            let Some(end) = end else { return Ok(()) };
            self.between(filter, after, end).await?;
            after = end;
        }
    }

    /// Changes the jobs that the filter means after one id and up to another; returns their ids. There are at most as many as
    /// in a window.
    async fn between(&mut self, filter: &JobFilter, after: i64, up_to: i64) -> Result<Vec<i64>, CliError> {
        let found = self.session.find_jobs(filter, after, up_to, WINDOW).await.map_err(explain(self.database))?;
        for batch in batches(&found) {
            self.batch(&batch).await?;
        }
        Ok(found.iter().map(|job| job.id).collect())
    }

    async fn batch(&mut self, ids: &[i64]) -> Result<(), CliError> {
        let (changed, refused) = self.change.apply_around(self.session, ids).await.map_err(explain(self.database))?;
        let done: HashSet<i64> = changed.iter().map(|job| job.id).chain(refused.iter().map(|(id, _)| *id)).collect();
        for (id, error) in refused {
            self.report.left(id, Left::Refused(error.reason()));
        }
        self.report.changed(&changed)?;
        let left: Vec<i64> = ids.iter().copied().filter(|id| !done.contains(id)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let found = self.session.list_jobs(&JobFilter::ids(&left), JobOrder::Oldest, left.len()).await;
        let found = found.map_err(explain(self.database))?;
        for id in left {
            let job = found.iter().find(|job| job.id == id);
            self.report.left(id, job.map_or(Left::Gone, |job| self.change.reason(job)));
        }
        Ok(())
    }
}

/// The ids, in parts whose jobs do not fill the memory.
fn batches(found: &[FoundJob]) -> Vec<Vec<i64>> {
    let mut batches: Vec<Vec<i64>> = Vec::new();
    let mut bytes = 0;
    for job in found {
        let size = usize::try_from(job.bytes).unwrap_or_default();
        match batches.last_mut().filter(|batch| batch.len() < BATCH && bytes + size <= BATCH_BYTES) {
            Some(batch) => batch.push(job.id),
            None => {
                batches.push(vec![job.id]);
                bytes = 0;
            }
        }
        bytes += size;
    }
    batches
}

/// `is being run by pool-… since 3s`
pub(super) fn holder(job: &StoredJob) -> String {
    let since = job.locked_at.map_or_else(String::new, |since| format!(" since {}", age(since)));
    format!("is being run by {}{since}", job.locked_by.as_deref().unwrap_or("somebody"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_by_their_text_and_hold_at_least_one_job() {
        let job = |(id, bytes): (i64, i32)| FoundJob { id, bytes };
        let large = i32::try_from(BATCH_BYTES).unwrap();
        let found: Vec<FoundJob> = [(1, 5), (2, large - 5), (3, 1), (4, large + 1), (5, 0)].map(job).into();
        assert_eq!(batches(&found), [vec![1, 2], vec![3], vec![4], vec![5]]);
        assert!(batches(&[]).is_empty());
    }
}
