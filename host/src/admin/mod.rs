//! What an administrator does with jobs: look at them, change them, release locks, clean up. Typed requests, typed results.
//!
//! The command line prints the results, and [`WorkerUtils`](crate::worker_utils::WorkerUtils) returns them. Nothing here prints or
//! knows of either.

mod action;
mod changes;
mod listing;
mod locks;

pub use action::{Action, Left, Selection};
pub use changes::{ChangedBatch, Changes, Selected};
pub use listing::Listing;
pub use locks::{LivingHosts, UnlockReport};

use crate::queue::{
    CleanedUp, CleanupTask, Database, JobCounts, JobFilter, JobOrder, LockHolders, QueueError, RowAccess,
    RowSecurityError, Session, StoredJob, UnknownTask,
};

/// How jobs are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// Of a large table, only a sample is read.
    #[default]
    Estimate,
    /// Each job is read.
    Exact,
}

/// An administrator's session in a database.
///
/// ```no_run
/// use taskbay::{
///     admin::{Action, Admin, Selection},
///     queue::{Database, JobFilter, JobState},
/// };
///
/// # async fn example(database: &Database) -> Result<(), Box<dyn std::error::Error>> {
/// let admin = Admin::open(database, Action::Retry.access()).await?;
/// let failed = JobFilter { states: vec![JobState::Failed], ..JobFilter::default() };
/// let selected = admin.select(Selection::Matching(failed)).await?;
/// let mut changes = selected.change(Action::Retry);
/// while let Some(batch) = changes.next().await? {
///     println!("retried {} jobs, left {} alone", batch.changed.len(), batch.left.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Admin {
    session: Session,
    limits: Option<RowSecurityError>,
}

impl Admin {
    /// Connects as a role that has this access to the rows. A role that certainly sees or changes none of them is refused, because
    /// Postgres would only report that there are no jobs; so is a role with less than all rows for [`RowAccess::Work`].
    pub async fn open(database: &Database, access: RowAccess) -> Result<Self, QueueError> {
        let session = database.session().await?;
        let limits = session.check_row_security(access).await?;
        match limits {
            Some(limits) if access == RowAccess::Work || !limits.is_partial() => Err(limits.into()),
            limits => Ok(Self { session, limits }),
        }
    }

    /// What may hide some of the jobs from this session's role.
    pub fn limits(&self) -> Option<&RowSecurityError> {
        self.limits.as_ref()
    }

    /// The session, for other statements.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The job with this id, if it is there.
    pub async fn job(&self, id: i64) -> Result<Option<StoredJob>, QueueError> {
        self.first(&JobFilter::ids(&[id])).await
    }

    /// The job under this key, if there is one.
    pub async fn job_under_key(&self, key: &str) -> Result<Option<StoredJob>, QueueError> {
        self.first(&JobFilter { keys: vec![key.to_owned()], ..JobFilter::default() }).await
    }

    /// The jobs that match the filter, one after the other; all of them without a limit.
    pub async fn list(
        &self,
        filter: &JobFilter,
        order: JobOrder,
        limit: Option<usize>,
    ) -> Result<Listing<'_>, QueueError> {
        Listing::open(&self.session, filter, order, limit).await
    }

    /// How many of the jobs that match the filter are of each task and in each state.
    pub async fn count(&self, filter: &JobFilter, precision: Precision) -> Result<JobCounts, QueueError> {
        match precision {
            Precision::Estimate => self.session.estimate_jobs(filter).await,
            Precision::Exact => Ok(JobCounts { counts: self.session.count_jobs(filter).await?, sampled: None }),
        }
    }

    /// The workers that hold jobs or queues, the one with the oldest lock first.
    pub async fn workers(&self, precision: Precision) -> Result<LockHolders, QueueError> {
        match precision {
            Precision::Estimate => self.session.estimate_lock_holders().await,
            Precision::Exact => Ok(LockHolders { holders: self.session.lock_holders().await?, sampled: None }),
        }
    }

    /// The tasks of a filter whose names the database does not know, each with the known name that was probably meant.
    pub async fn unknown_tasks(&self, filter: &JobFilter) -> Result<Vec<UnknownTask>, QueueError> {
        let names: Vec<&str> = filter.tasks.iter().map(String::as_str).collect();
        self.session.unknown_tasks(&names, &[]).await
    }

    /// Fixes which jobs are to be changed: none of those that are added from now on, so that the change ends.
    pub async fn select(&self, selection: Selection) -> Result<Selected<'_>, QueueError> {
        Selected::of(&self.session, selection).await
    }

    /// Changes these jobs by one statement, and returns those that it changed. If the database refuses one of them, none is
    /// changed; see [`Admin::select`] for changes that go on.
    pub async fn change(&self, action: &Action, ids: &[i64]) -> Result<Vec<StoredJob>, QueueError> {
        action.apply(&self.session, ids).await
    }

    /// Removes the job under a key and returns it; `None` if there is none. A job that a worker holds goes on, but loses its
    /// key and is not tried again.
    pub async fn remove_under_key(&self, key: &str) -> Result<Option<StoredJob>, QueueError> {
        self.session.remove_job(key).await
    }

    /// Deletes what is not needed any more, and returns how much. See [`Session::cleanup`].
    pub async fn clean_up(&mut self, tasks: &[CleanupTask], keep: &[&str]) -> Result<Vec<CleanedUp>, QueueError> {
        self.session.cleanup(tasks, keep).await
    }

    async fn first(&self, filter: &JobFilter) -> Result<Option<StoredJob>, QueueError> {
        Ok(self.session.list_jobs(filter, JobOrder::Oldest, 1).await?.pop())
    }
}
