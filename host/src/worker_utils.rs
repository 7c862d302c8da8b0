//! What an administrator or an application does with jobs, without working them: graphile-worker's `WorkerUtils`.

use crate::{
    admin::{Action, Admin},
    migrate::{self, MigrateError, Revision},
    queue::{
        CleanedUp, CleanupTask, Database, Job, NewJob, QueueError, Reschedule, RowAccess, Session, StoredJob,
        UnlockedWorker,
    },
};

/// Adds, changes and removes jobs of a database.
///
/// ```no_run
/// use taskbay::{
///     queue::{CleanupTask, Database, DatabaseSettings, NewJob, Reschedule},
///     worker_utils::WorkerUtils,
/// };
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = "postgres://localhost/app".parse()?;
/// let utils = WorkerUtils::new(Database::new(DatabaseSettings::new(config, "graphile_worker"))?);
/// utils.migrate().await?;
///
/// let job = utils.add_job(&NewJob { payload: Some(r#"{"to": "ada"}"#.into()), ..NewJob::new("send_email") }).await?;
/// utils.reschedule_jobs(&[job.id], &Reschedule { priority: Some(-10), attempts: Some(0), ..Reschedule::default() }).await?;
/// for failed in utils.permanently_fail_jobs(&[job.id], Some("not needed any more")).await? {
///     println!("gave up {} {}", failed.task_identifier, failed.id);
/// }
/// utils.cleanup(&[CleanupTask::DeletePermafailedJobs, CleanupTask::GcJobQueues], &[]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct WorkerUtils {
    database: Database,
}

impl WorkerUtils {
    /// For this database. Connects when there is something to do.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Installs the schema where there is none, and refuses a database that this program does not know.
    pub async fn migrate(&self) -> Result<Revision, MigrateError> {
        migrate::prepare(&self.database).await
    }

    /// Adds a job, or changes the one under its key, and returns it as it is stored.
    pub async fn add_job(&self, new: &NewJob) -> Result<Job, QueueError> {
        self.session().await?.add_job(new).await
    }

    /// Adds all of the jobs or, on an error, none of them. See [`Session::add_jobs`].
    pub async fn add_jobs(&self, new: &[NewJob]) -> Result<Vec<Job>, QueueError> {
        self.session().await?.add_jobs(new).await
    }

    /// Deletes jobs as if they had been done, and returns them. Jobs that a worker holds are left alone, unless their lock
    /// is older than four hours.
    pub async fn complete_jobs(&self, ids: &[i64]) -> Result<Vec<StoredJob>, QueueError> {
        self.change(&Action::Complete, ids).await
    }

    /// Makes jobs fail for good, and returns them. Jobs that a worker holds are left alone, unless their lock is older than
    /// four hours. Without a reason their `last_error` becomes the database's own.
    pub async fn permanently_fail_jobs(&self, ids: &[i64], reason: Option<&str>) -> Result<Vec<StoredJob>, QueueError> {
        self.change(&Action::Fail(reason.map(str::to_owned)), ids).await
    }

    /// Runs jobs again that were tried before, now and with all of their attempts, and returns them: those that wait for their
    /// next attempt, and those that failed for good. Jobs that a worker holds or that were never tried are left alone. Idle
    /// workers find what is due at their next poll.
    pub async fn retry_jobs(&self, ids: &[i64]) -> Result<Vec<StoredJob>, QueueError> {
        self.change(&Action::Retry, ids).await
    }

    /// Deletes jobs, and returns them. Jobs that a worker holds are left alone, unless their lock is older than four hours.
    pub async fn remove_jobs(&self, ids: &[i64]) -> Result<Vec<StoredJob>, QueueError> {
        self.change(&Action::Remove, ids).await
    }

    /// Changes when and how often jobs are tried, and returns them. Jobs that a worker holds are left alone, unless their
    /// lock is older than four hours. Idle workers find what is due at their next poll. A job that failed for good stays so
    /// unless it is given attempts: see [`WorkerUtils::retry_jobs`].
    pub async fn reschedule_jobs(&self, ids: &[i64], change: &Reschedule) -> Result<Vec<StoredJob>, QueueError> {
        self.change(&Action::Reschedule(*change), ids).await
    }

    /// Removes the job under a key and returns it; `None` if there is none. A job that a worker holds goes on, but loses its
    /// key and is not tried again.
    pub async fn remove_job(&self, key: &str) -> Result<Option<StoredJob>, QueueError> {
        self.admin(RowAccess::Change).await?.remove_under_key(key).await
    }

    /// Unlocks the jobs and queues of these workers, and tells what each held. A worker is named as in `locked_by`: by its
    /// pool's id, or before graphile-worker 0.17 by its own. Only for workers that do not live any more: the jobs of a
    /// living one would run twice.
    pub async fn force_unlock_workers(&self, workers: &[&str]) -> Result<Vec<UnlockedWorker>, QueueError> {
        self.admin(RowAccess::Unlock).await?.session().force_unlock_workers(workers).await
    }

    /// Deletes what nobody needs any more, and tells how much. The names of tasks in `keep` are not forgotten: name there
    /// the tasks of all workers that run. See [`Session::cleanup`].
    pub async fn cleanup(&self, tasks: &[CleanupTask], keep: &[&str]) -> Result<Vec<CleanedUp>, QueueError> {
        self.admin(RowAccess::Work).await?.clean_up(tasks, keep).await
    }

    async fn change(&self, action: &Action, ids: &[i64]) -> Result<Vec<StoredJob>, QueueError> {
        self.admin(action.access()).await?.change(action, ids).await
    }

    async fn admin(&self, access: RowAccess) -> Result<Admin, QueueError> {
        Admin::open(&self.database, access).await
    }

    async fn session(&self) -> Result<Session, QueueError> {
        self.database.session().await
    }
}
