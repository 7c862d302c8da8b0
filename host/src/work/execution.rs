//! One job's run: on the build that is current when it starts, to a verdict.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Level;

use super::{completion::Completions, pool::Pool};
use crate::{
    events::{Event, JobRun},
    plugin::{BuildId, FailedItems, FailureKind, JobInput, Outcome},
    queue::Job,
    tasks::Task,
};

/// A claimed job.
#[derive(Debug)]
pub(super) struct Execution {
    pool: Arc<Pool>,
    task: Arc<str>,
    job: Job,
    /// The task map by which it was claimed.
    map: u64,
}

/// What the database is to be told of a job.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) job_queue_id: Option<i32>,
    pub(super) run: JobRun,
    pub(super) took: Duration,
    pub(super) kind: VerdictKind,
}

#[derive(Debug)]
pub(super) enum VerdictKind {
    Complete,
    /// `permanent` ends the job even if it has attempts left.
    Fail {
        message: String,
        permanent: bool,
        /// What the payload becomes, if it is to be another one.
        payload: Option<String>,
    },
    Return {
        reason: &'static str,
    },
}

impl Execution {
    pub(super) fn new(pool: Arc<Pool>, task: Arc<str>, job: Job, map: u64) -> Self {
        Self { pool, task, job, map }
    }

    /// Runs the job and hands its verdict on; the slot is free once the completer has it.
    pub(super) async fn run(self, completions: Completions, slot: OwnedSemaphorePermit) {
        let began = Instant::now();
        let (kind, run) = self.perform().await;
        let verdict = Verdict { job_queue_id: self.job.job_queue_id, run, took: began.elapsed(), kind };
        completions.store(verdict).await;
        drop(slot);
    }

    /// Starts the job on the current build. A build that was replaced at this very moment does not take it any more, and
    /// then the next one does.
    async fn perform(&self) -> (VerdictKind, JobRun) {
        let mut tried: Option<Task> = None;
        loop {
            let Some(task) = self.pool.tasks.load().get(&self.task).cloned() else {
                return (VerdictKind::Return { reason: "no plugin has this task any more" }, self.describe(None));
            };
            if tried.as_ref().is_some_and(|last| Arc::ptr_eq(&last.generation, &task.generation)) {
                return (VerdictKind::Return { reason: "its plugin is not taking jobs" }, self.describe(None));
            }
            if self.pool.stop.graceful.is_cancelled() {
                return (VerdictKind::Return { reason: "the host is stopping" }, self.describe(None));
            }
            let run = self.describe(Some(&task));
            self.pool.events.emit_if_heard(Level::DEBUG, || Event::JobStarted { job: run.clone(), map: self.map });
            match task.generation.run(task.index, &self.input(&task), &self.pool.cancel).await {
                Outcome::Done => return (VerdictKind::Complete, run),
                Outcome::Failed { kind, message } => {
                    let permanent = kind == FailureKind::Discard || self.is_last_attempt(&task);
                    return (VerdictKind::Fail { message, permanent, payload: None }, run);
                }
                Outcome::PartlyFailed { items, message } => {
                    let kind = self.partly_failed(&items, message, self.is_last_attempt(&task), &run);
                    return (kind, run);
                }
                Outcome::NotStarted => tried = Some(task),
            }
        }
    }

    /// The next attempt gets the items that failed and no others, as they were stored.
    fn partly_failed(&self, failed: &FailedItems, message: String, last: bool, run: &JobRun) -> VerdictKind {
        let payload = &self.job.payload;
        match serde_json::from_str::<Vec<&RawValue>>(payload) {
            Ok(items) if items.len() == failed.items() => {
                let (left, again) = failed.left(last);
                let left: Vec<&str> = left.iter().map(|index| items[*index].get()).collect();
                let payload = (left.len() < items.len()).then(|| format!("[{}]", left.join(",")));
                VerdictKind::Fail { message, permanent: !again, payload }
            }
            // What Postgres takes for an array should be one here, too. Should it not be, then nothing is lost.
            Err(error) if payload.trim_start().starts_with('[') => {
                let message =
                    format!("{message}\n(the payload cannot be taken apart, so that all is tried again: {error})");
                VerdictKind::Fail { message, permanent: last, payload: None }
            }
            // As graphile-worker does: results that stand for nothing in the payload are no results.
            Ok(_) | Err(_) => {
                self.pool.events.emit(Event::ResultsIgnored { job: run.clone(), results: failed.items(), message });
                VerdictKind::Complete
            }
        }
    }

    /// The task may allow fewer attempts than the job was added with.
    fn is_last_attempt(&self, task: &Task) -> bool {
        u32::from(self.job.attempts.unsigned_abs()) >= self.max_attempts(task)
    }

    fn max_attempts(&self, task: &Task) -> u32 {
        let of_job = u32::from(self.job.max_attempts.unsigned_abs());
        task.spec().max_attempts.map_or(of_job, |of_task| of_task.min(of_job))
    }

    fn describe(&self, task: Option<&Task>) -> JobRun {
        JobRun {
            worker: Arc::clone(&self.pool.id),
            id: self.job.id,
            task: Arc::clone(&self.task),
            attempt: self.job.attempts,
            max_attempts: self.job.max_attempts,
            plugin: task.map_or_else(Arc::default, |task| task.generation.shared_name()),
            build: task.map_or(BuildId([0; 32]), |task| task.generation.build()),
        }
    }

    fn input(&self, task: &Task) -> JobInput<'_> {
        let job = &self.job;
        JobInput {
            id: job.id,
            task: &self.task,
            attempt: u32::from(job.attempts.unsigned_abs()),
            max_attempts: self.max_attempts(task),
            priority: i32::from(job.priority),
            revision: job.revision,
            run_at_us: micros(job.run_at),
            created_at_us: micros(job.created_at),
            updated_at_us: micros(job.updated_at),
            payload: &job.payload,
            queue: job.queue_name.as_deref(),
            key: job.key.as_deref(),
            last_error: job.last_error.as_deref(),
            flags: job.flags.as_deref(),
        }
    }
}

/// Microseconds since the Unix epoch, negative before it.
fn micros(time: SystemTime) -> i64 {
    let clamp = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => clamp(since),
        Err(before) => -clamp(before.duration()),
    }
}
