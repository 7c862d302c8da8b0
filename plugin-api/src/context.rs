//! A task's view of its job, and its requests to the host.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use tokio::task::JoinHandle;

use crate::{
    NewJob, NewJobs,
    current::Scoped,
    job::{Call, Stop, time},
    new_job::OnHost,
};

/// A task's job and the plugin's state. Cheap to clone.
///
/// A task that needs the plugin's state takes `Context<State>`; other tasks take `Context`.
pub struct Context<S = ()> {
    call: Arc<Call>,
    state: Arc<S>,
}

impl<S> Context<S> {
    pub(crate) fn new(call: Arc<Call>, state: Arc<S>) -> Self {
        Self { call, state }
    }

    /// The state returned by the plugin's `state:` function.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// The job's id.
    pub fn id(&self) -> i64 {
        self.call.job.id
    }

    /// The task's name in the job.
    pub fn task(&self) -> &'static str {
        self.call.task
    }

    /// The number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.call.job.attempt
    }

    /// The maximum number of attempts.
    pub fn max_attempts(&self) -> u32 {
        self.call.job.max_attempts
    }

    /// Whether the job fails for good if this attempt fails.
    pub fn is_last_attempt(&self) -> bool {
        self.attempt() >= self.max_attempts()
    }

    /// The priority; smaller numbers run first.
    pub fn priority(&self) -> i32 {
        self.call.job.priority
    }

    /// The time at which the job was due.
    pub fn run_at(&self) -> SystemTime {
        time(self.call.job.run_at_us)
    }

    /// The time at which the job was added.
    pub fn created_at(&self) -> SystemTime {
        time(self.call.job.created_at_us)
    }

    /// The time of the job's last change other than by a worker.
    pub fn updated_at(&self) -> SystemTime {
        time(self.call.job.updated_at_us)
    }

    /// The name of the job's queue, if it has one.
    pub fn queue(&self) -> Option<&str> {
        self.call.job.queue.as_deref()
    }

    /// The job's key, if it has one.
    pub fn key(&self) -> Option<&str> {
        self.call.job.key.as_deref()
    }

    /// The number of changes of the job through its key.
    pub fn revision(&self) -> i32 {
        self.call.job.revision
    }

    /// The job's flags, in alphabetical order.
    pub fn flags(&self) -> Vec<String> {
        let flags = self.call.job.flags.as_deref().map(serde_json::from_str::<BTreeMap<String, serde::de::IgnoredAny>>);
        flags.and_then(Result::ok).unwrap_or_default().into_keys().collect()
    }

    /// The error of the previous attempt, if there was one.
    pub fn last_error(&self) -> Option<&str> {
        self.call.job.last_error.as_deref()
    }

    /// The payload as JSON text, byte for byte as stored in the database.
    pub fn payload(&self) -> &str {
        &self.call.job.payload
    }

    /// The time limit of the job, if it has one.
    pub fn timeout(&self) -> Option<Duration> {
        (self.call.job.timeout_ms > 0).then(|| Duration::from_millis(self.call.job.timeout_ms))
    }

    /// The time at which the job is cancelled for its time limit, if it has one.
    pub fn deadline(&self) -> Option<Instant> {
        self.call.deadline
    }

    /// Whether the job is cancelled, by its time limit or the host's shutdown. An async task that continues is dropped at
    /// an `.await` a short time later.
    pub fn is_cancelled(&self) -> bool {
        self.call.stop() >= Stop::Asked
    }

    /// Completes when the job is cancelled; for `tokio::select!`.
    pub async fn cancelled(&self) {
        self.call.stopped(Stop::Asked).await;
    }

    /// Adds a job for a task of this or any other plugin.
    ///
    /// ```
    /// # use taskbay_plugin::prelude::*;
    /// # use std::time::Duration;
    /// #[task]
    /// async fn welcome(ctx: Context) -> TaskResult {
    ///     let id = ctx.add_job("send_email", &json!({ "to": "ada@example.org" })).await?;
    ///     info!(id, "added");
    ///     ctx.add_job("remind", &json!({})).run_in(Duration::from_secs(3600)).key("remind:ada").await?;
    ///     Ok(())
    /// }
    ///
    /// #[task]
    /// fn welcome_plain(ctx: Context) -> TaskResult {
    ///     ctx.add_job("send_email", &json!({ "to": "ada@example.org" })).wait()?;
    ///     Ok(())
    /// }
    /// ```
    pub fn add_job<P: Serialize + ?Sized>(&self, task: impl Into<String>, payload: &P) -> NewJob<OnHost> {
        NewJob::new(task, payload).by(self.host())
    }

    /// Adds many jobs in one statement: all of them or, on an error, none. Their keys must differ.
    ///
    /// ```
    /// # use taskbay_plugin::prelude::*;
    /// #[task]
    /// async fn welcome_all(ctx: Context, addresses: Vec<String>) -> TaskResult {
    ///     let mails = addresses.iter().map(|to| NewJob::new("send_email", &json!({ "to": to })).priority(10));
    ///     let ids = ctx.add_jobs(mails).await?;
    ///     info!(added = ids.len(), "welcomed");
    ///     Ok(())
    /// }
    /// ```
    pub fn add_jobs<By>(&self, jobs: impl IntoIterator<Item = NewJob<By>>) -> NewJobs {
        NewJobs::new(self.host(), jobs)
    }

    fn host(&self) -> OnHost {
        OnHost::new(&self.call.link, self.call.number)
    }

    /// Spawns a future as `tokio::spawn` does, and attributes its log lines to this job.
    ///
    /// The job does not wait for it; await the handle if the result matters.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(Scoped::new(self.call.current(false), future))
    }
}

impl<S> Clone for Context<S> {
    fn clone(&self) -> Self {
        Self { call: Arc::clone(&self.call), state: Arc::clone(&self.state) }
    }
}

impl<S> fmt::Debug for Context<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("task", &self.task()).field("id", &self.id()).finish_non_exhaustive()
    }
}
