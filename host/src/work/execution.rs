//! A slot: runs one job after the other, each on the build that is current when it starts, to a verdict.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde_json::value::RawValue;
use tracing::Level;

use super::{
    crashes::Crashes,
    held::{HeldJob, TakenJob},
    pool::Pool,
    verdict::{Verdict, VerdictKind},
};
use crate::{
    events::{Event, JobRun},
    plugin::{FailedItems, FailureKind, JobInput, Outcome},
    queue::{ClaimedJob, without_record},
    tasks::Task,
};

/// Runs jobs one at a time until no more are to be taken.
pub(super) async fn run_slot(pool: Arc<Pool>) {
    while let Some(TakenJob { held, batch }) = pool.held.take().await {
        pool.taken();
        let began = Instant::now();
        let execution = Execution { pool: &pool, held: &held };
        let (kind, run) = execution.perform().await;
        let run = match (&kind, run) {
            (VerdictKind::Return { .. }, None) => Some(Box::new(held.describe(&pool.id, None))),
            (_, run) => run,
        };
        let verdict = Verdict {
            claim: ClaimedJob::of(&held.job),
            task_id: held.job.task_id,
            map: held.map,
            took: began.elapsed(),
            kind,
            run,
            repeated: false,
        };
        pool.held.ended();
        let marked = match batch {
            Some(batch) => batch.report(verdict),
            None => Some(verdict),
        };
        if let Some(verdict) = marked {
            pool.verdicts.add(verdict);
            pool.wake();
        }
    }
}

/// A job that a slot has taken.
struct Execution<'a> {
    pool: &'a Pool,
    held: &'a HeldJob,
}

impl Execution<'_> {
    /// Starts the job on the current build. A build that was replaced at this very moment does not take it any more, and
    /// then the next one does.
    async fn perform(&self) -> (VerdictKind, Option<Box<JobRun>>) {
        let returned = |reason| (VerdictKind::Return { reason, at_once: false }, None);
        let mut refused = None;
        let flags = without_record(self.held.job.flags.as_deref());
        loop {
            let task = match self.pool.tasks.find(&self.held.task, refused.as_ref()) {
                Ok(task) => task,
                Err(reason) => return returned(reason),
            };
            if self.pool.stop.graceful.is_cancelled() {
                return returned("the host is stopping");
            }
            // Nothing is made for events that nobody hears.
            let heard = self
                .pool
                .events
                .is_heard(Level::DEBUG)
                .then(|| Box::new(self.held.describe(&self.pool.id, Some(&task))));
            if let Some(run) = &heard {
                self.pool.events.emit(Event::JobStarted { job: (**run).clone(), map: self.held.map });
            }
            let crashes = Crashes::of(&self.held.job);
            let generation = &task.generation;
            let in_host = generation.runs_in_this_process();
            let alone = generation.runs_alone() && crashes.want_own_process(in_host);
            let (input, cancel) = (self.input(&task, flags.as_deref()), &self.pool.cancel);
            let outcome = if alone {
                // In a box, because it is rare and large.
                Box::pin(generation.run_alone(task.index, &input, cancel)).await
            } else {
                generation.run(task.index, &input, cancel).await
            };
            let run = || heard.clone().unwrap_or_else(|| Box::new(self.held.describe(&self.pool.id, Some(&task))));
            match outcome {
                Outcome::Done => return (VerdictKind::Complete, heard),
                // It has not come to its end because of this host's, which is no reason to count the attempt.
                Outcome::Failed { kind: FailureKind::Cancelled, .. } if cancel.force.is_cancelled() => {
                    return (VerdictKind::Return { reason: "the host is stopping", at_once: false }, heard);
                }
                Outcome::Failed { kind: FailureKind::Crash, message } if generation.runs_alone() => {
                    let most = self.pool.settings.max_crashes;
                    let (message, over, record) = crashes.and_one_more(&message, alone, in_host, most);
                    let permanent = over || self.is_last_attempt(&task);
                    return (
                        VerdictKind::Fail { message, permanent, payload: None, crashes: Some(record) },
                        Some(run()),
                    );
                }
                Outcome::Failed { kind, message } => {
                    let permanent = kind == FailureKind::Discard || self.is_last_attempt(&task);
                    return (VerdictKind::Fail { message, permanent, payload: None, crashes: None }, Some(run()));
                }
                Outcome::PartlyFailed { items, message } => {
                    let run = run();
                    return (self.partly_failed(&items, message, self.is_last_attempt(&task), &run), Some(run));
                }
                Outcome::NotStarted => refused = Some(task),
            }
        }
    }

    /// The next attempt gets the items that failed and no others, as they were stored.
    fn partly_failed(&self, failed: &FailedItems, message: String, last: bool, run: &JobRun) -> VerdictKind {
        let payload = &self.held.job.payload;
        match serde_json::from_str::<Vec<&RawValue>>(payload) {
            Ok(items) if items.len() == failed.items() => {
                let (left, again) = failed.left(last);
                let left: Vec<&str> = left.iter().map(|index| items[*index].get()).collect();
                let payload = (left.len() < items.len()).then(|| format!("[{}]", left.join(",")));
                VerdictKind::Fail { message, permanent: !again, payload, crashes: None }
            }
            // What Postgres takes for an array should be one here, too. Should it not be, then nothing is lost.
            Err(error) if payload.trim_start().starts_with('[') => {
                let message =
                    format!("{message}\n(the payload cannot be taken apart, so that all is tried again: {error})");
                VerdictKind::Fail { message, permanent: last, payload: None, crashes: None }
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
        u32::from(self.held.job.attempts.unsigned_abs()) >= self.max_attempts(task)
    }

    fn max_attempts(&self, task: &Task) -> u32 {
        let of_job = u32::from(self.held.job.max_attempts.unsigned_abs());
        task.spec().max_attempts.map_or(of_job, |of_task| of_task.min(of_job))
    }

    fn input<'a>(&'a self, task: &Task, flags: Option<&'a str>) -> JobInput<'a> {
        let job = &self.held.job;
        JobInput {
            id: job.id,
            task: &self.held.task,
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
            flags,
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
