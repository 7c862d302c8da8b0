//! A slot: runs one job after the other, each on the build that is current when it starts, to a verdict.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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
    queue::{ClaimedJob, CrashRecord, without_record},
    tasks::Task,
};

/// Runs jobs one at a time until no more are to be taken.
pub(super) async fn run_slot(pool: Arc<Pool>) {
    while let Some(TakenJob { held, batch }) = pool.running().take().await {
        pool.taken();
        let began = Instant::now();
        let execution = Execution { pool: &pool, held: &held };
        let (kind, run) = execution.perform().await;
        let run = match (&kind, run) {
            (VerdictKind::Return { .. }, None) => Some(Box::new(held.describe(pool.identity().id(), None))),
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
        pool.running().job_ended();
        let marked = match batch {
            Some(batch) => batch.report(verdict),
            None => Some(verdict),
        };
        if let Some(verdict) = marked {
            pool.verdicts().add(verdict);
            pool.wakes().wake();
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
            if self.pool.identity().stop().graceful.is_cancelled() {
                return returned("the host is stopping");
            }
            let task = match self.pool.tasks().find(&self.held.task, refused.as_ref()) {
                Ok(task) => task,
                Err(reason) => return returned(reason),
            };
            if !self.held.job.is_readable {
                let run = Box::new(self.held.describe(self.pool.identity().id(), Some(&task)));
                return (unreadable(&self.held.job.payload), Some(run));
            }
            // Nothing is made for events that nobody hears.
            let heard = self
                .pool
                .events()
                .is_heard(Level::DEBUG)
                .then(|| Box::new(self.held.describe(self.pool.identity().id(), Some(&task))));
            let crashes = Crashes::of(&self.held.job);
            let generation = &task.generation;
            let in_host = generation.runs_in_this_process();
            let alone = generation.runs_alone() && crashes.want_own_process(in_host);
            let cancel = self.pool.running().cancel();
            let outcome = self.attempt(&task, alone, flags.as_deref(), heard.as_deref()).await;
            let run = || {
                heard.clone().unwrap_or_else(|| Box::new(self.held.describe(self.pool.identity().id(), Some(&task))))
            };
            match outcome {
                Outcome::Done => return (VerdictKind::Complete, heard),
                // It has not come to its end because of this host's, which is no reason to count the attempt.
                Outcome::Failed { kind: FailureKind::Cancelled, .. } if cancel.force.is_cancelled() => {
                    return (VerdictKind::Return { reason: "the host is stopping", at_once: false }, heard);
                }
                Outcome::Failed { kind: FailureKind::Crash, message } if generation.runs_alone() => {
                    let most = self.pool.settings().max_crashes;
                    let (message, over, record) = crashes.and_one_more(&message, alone, in_host, most);
                    return (self.failed(&task, message, over, None, Some(record)), Some(run()));
                }
                Outcome::Failed { kind, message } => {
                    let permanent = kind == FailureKind::Discard;
                    return (self.failed(&task, message, permanent, None, None), Some(run()));
                }
                Outcome::PartlyFailed { items, message } => {
                    let run = run();
                    return (self.partly_failed(&items, message, &task, &run), Some(run));
                }
                Outcome::NotStarted => refused = Some(task),
            }
        }
    }

    /// One attempt on one build. Its start is announced when the build accepts the job, and not where it refuses it.
    async fn attempt(&self, task: &Task, alone: bool, flags: Option<&str>, heard: Option<&JobRun>) -> Outcome {
        let announced = AtomicBool::new(false);
        let announce = || {
            if let Some(run) = heard.filter(|_| !announced.swap(true, Ordering::Relaxed)) {
                self.pool.events().emit(Event::JobStarted { job: run.clone(), map: self.held.map });
            }
        };
        let (input, cancel, generation) = (self.input(task, flags), self.pool.running().cancel(), &task.generation);
        let outcome = if alone {
            // In a box, because it is rare and large.
            Box::pin(generation.run_alone(task.index, &input, cancel, &announce)).await
        } else {
            generation.run_announced(task.index, &input, cancel, &announce).await
        };
        if outcome != Outcome::NotStarted {
            // An attempt that failed before its code could run has an end, and so a start.
            announce();
        }
        outcome
    }

    /// The next attempt gets the items that failed and no others, as they were stored.
    fn partly_failed(&self, failed: &FailedItems, message: String, task: &Task, run: &JobRun) -> VerdictKind {
        let payload = &self.held.job.payload;
        match serde_json::from_str::<Vec<&RawValue>>(payload) {
            Ok(items) if items.len() == failed.items() => {
                let (left, again) = failed.left(run.attempt >= run.max_attempts);
                let left: Vec<&str> = left.iter().map(|index| items[*index].get()).collect();
                let payload = (left.len() < items.len()).then(|| format!("[{}]", left.join(",")));
                self.failed(task, message, !again, payload, None)
            }
            // What Postgres takes for an array should be one here, too. Should it not be, then nothing is lost.
            Err(error) if payload.trim_start().starts_with('[') => {
                let message =
                    format!("{message}\n(the payload cannot be taken apart, so that all is tried again: {error})");
                self.failed(task, message, false, None, None)
            }
            // As graphile-worker does: results that stand for nothing in the payload are no results.
            Ok(_) | Err(_) => {
                self.pool.events().emit(Event::ResultsIgnored { job: run.clone(), results: failed.items(), message });
                VerdictKind::Complete
            }
        }
    }

    fn failed(
        &self,
        task: &Task,
        message: String,
        permanent: bool,
        payload: Option<String>,
        crashes: Option<CrashRecord>,
    ) -> VerdictKind {
        let allowed = self.held.max_attempts(task);
        let max_attempts = (allowed < self.held.job.max_attempts).then_some(allowed);
        VerdictKind::Fail { message, permanent, max_attempts, payload, crashes }
    }

    fn input<'a>(&'a self, task: &Task, flags: Option<&'a str>) -> JobInput<'a> {
        let job = &self.held.job;
        JobInput {
            id: job.id,
            task: &self.held.task,
            attempt: u32::from(job.attempts.unsigned_abs()),
            max_attempts: u32::from(self.held.max_attempts(task).unsigned_abs()),
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

/// Another attempt would meet the same bytes.
fn unreadable(payload: &str) -> VerdictKind {
    const SHOWN: usize = 200;
    let shown: String = payload.chars().take(SHOWN).collect();
    let more = if shown.len() < payload.len() { " …" } else { "" };
    let message = format!("the payload is not valid UTF-8, so no task can read it: {shown}{more}");
    VerdictKind::Fail { message, permanent: true, max_attempts: None, payload: None, crashes: None }
}
