//! What a task of this program knows of its job, and what it can do beside its own work.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use tokio_postgres::{Row, types::ToSql};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tracing::Span;

use crate::{
    plugin::JobInput,
    queue::{AddedJob, NewJob, QueueError, Session},
    work::JobAdder,
};

/// A job that runs, as it was stored when it was claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningJob {
    pub id: i64,
    /// The name of the task.
    pub task: String,
    /// JSON text, as it is stored.
    pub payload: String,
    pub queue_name: Option<String>,
    pub priority: i32,
    pub run_at: SystemTime,
    /// Counts the attempt under way.
    pub attempts: u32,
    /// Of the job or of the task, whichever is less.
    pub max_attempts: u32,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    pub created_at: SystemTime,
    pub updated_at: SystemTime,
    pub key: Option<String>,
    pub revision: i32,
    /// JSON text: an object in which each flag is `true`.
    pub flags: Option<String>,
    /// The id of the pool that runs it.
    pub locked_by: String,
}

/// The job at hand and the way back to the database: graphile-worker's `helpers`. Cheap to clone.
///
/// Lines that are written with [`tracing`] while the task runs are in the span `job`, whose fields are `job`, `task`,
/// `worker` and `attempt`.
#[derive(Debug, Clone)]
pub struct JobContext {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    job: RunningJob,
    cancelled: CancellationToken,
    jobs: JobAdder,
    span: Span,
}

/// What all jobs of one host have in common.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) jobs: JobAdder,
    /// The pool's id, known before the first job runs.
    pub(super) worker: Arc<OnceLock<Arc<str>>>,
}

impl Surroundings {
    pub(super) fn of(&self, job: &JobInput<'_>, cancelled: CancellationToken) -> JobContext {
        let worker = self.worker.get().map(|worker| &**worker).unwrap_or_default();
        let span = tracing::info_span!("job", job = job.id, task = job.task, worker, attempt = job.attempt);
        let job = RunningJob::new(job, worker);
        JobContext { inner: Arc::new(Inner { job, cancelled, jobs: self.jobs.clone(), span }) }
    }
}

impl JobContext {
    /// The job.
    pub fn job(&self) -> &RunningJob {
        &self.inner.job
    }

    /// The job's id.
    pub fn id(&self) -> i64 {
        self.inner.job.id
    }

    /// The number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.inner.job.attempts
    }

    /// The queue that the job is in.
    pub fn queue_name(&self) -> Option<&str> {
        self.inner.job.queue_name.as_deref()
    }

    /// Waits until the job is asked to end: its time is up, or the host has been stopping for `abort_timeout`. A task that
    /// is asked by a stop may go on for as long as it needs.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.inner.cancelled.cancelled()
    }

    /// The same, to be handed on: graphile-worker's `abortSignal`.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.inner.cancelled
    }

    /// The span of the job, for what the task starts beside itself.
    pub fn span(&self) -> &Span {
        &self.inner.span
    }

    /// Adds a job, in a statement of its own: it is there even if this job fails.
    pub async fn add_job(&self, new: &NewJob) -> Result<AddedJob, QueueError> {
        self.inner.jobs.add_job(new).await
    }

    /// Adds many jobs with one statement, and returns them in the order of `new`.
    pub async fn add_jobs(&self, new: &[NewJob]) -> Result<Vec<AddedJob>, QueueError> {
        self.inner.jobs.add_jobs(new).await
    }

    /// A connection of the host's pool, outside of any transaction; it goes back when it is dropped. The time limits of the role hold
    /// on it, which do not for the host's own statements. While a job keeps one
    /// it should not wait for another: the pool has `max_pool_size` of them for all jobs.
    pub async fn client(&self) -> Result<PooledClient, QueueError> {
        Ok(PooledClient { session: self.inner.jobs.database().session_of_task().await? })
    }

    /// Runs one statement on such a connection.
    pub async fn query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, QueueError> {
        let client = self.client().await?;
        client.query(sql, parameters).await.map_err(|error| QueueError::statement("run a task's statement", &error))
    }
}

/// A connection of the host's pool: a [`tokio_postgres::Client`].
#[derive(Debug)]
pub struct PooledClient {
    session: Session,
}

impl Deref for PooledClient {
    type Target = tokio_postgres::Client;

    fn deref(&self) -> &tokio_postgres::Client {
        self.session.client()
    }
}

impl DerefMut for PooledClient {
    fn deref_mut(&mut self) -> &mut tokio_postgres::Client {
        self.session.client_mut()
    }
}

impl RunningJob {
    fn new(job: &JobInput<'_>, worker: &str) -> Self {
        Self {
            id: job.id,
            task: job.task.to_owned(),
            payload: job.payload.to_owned(),
            queue_name: job.queue.map(str::to_owned),
            priority: job.priority,
            run_at: time(job.run_at_us),
            attempts: job.attempt,
            max_attempts: job.max_attempts,
            last_error: job.last_error.map(str::to_owned),
            created_at: time(job.created_at_us),
            updated_at: time(job.updated_at_us),
            key: job.key.map(str::to_owned),
            revision: job.revision,
            flags: job.flags.map(str::to_owned),
            locked_by: worker.to_owned(),
        }
    }
}

fn time(us: i64) -> SystemTime {
    let distance = Duration::from_micros(us.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    let time = if us < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
    time.unwrap_or(epoch)
}
