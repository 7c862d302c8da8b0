//! A slot: runs one job after the other, each on the build that is current when it starts, to a completion.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tracing::Level;

use super::{
    completion::{Completion, End},
    conclusion::{Attempt, Conclusion, Process, conclude, unreadable},
    crashes::Crashes,
    held_job::HeldJob,
    pool::Pool,
};
use crate::{
    events::{Event, JobRun},
    plugin::{JobInput, Outcome},
    queue::without_record,
    tasks::Task,
};

impl Pool {
    /// Opens as many more slots as there are jobs for, up to all.
    pub(super) fn open_slots(self: &Arc<Self>) {
        self.running().open_slots(|| self.events().parts().guard("job slot", run_slot(Arc::clone(self))));
    }
}

/// Runs jobs one at a time until no more are to be taken.
async fn run_slot(pool: Arc<Pool>) {
    while let Some(taken) = pool.running().take().await {
        pool.taken();
        let began = Instant::now();
        let execution = Execution { pool: &pool, held: &taken.held };
        let (end, run) = execution.perform().await;
        let completion = Completion::of(&taken.held, began.elapsed(), end, run);
        pool.running().job_ended();
        if let Some(completion) = taken.complete(completion) {
            pool.completions().add(completion);
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
    async fn perform(&self) -> (End, Option<Box<JobRun>>) {
        let (pool, job) = (self.pool, &self.held.job);
        let describe = |task: Option<&Task>| Box::new(self.held.describe(pool.identity().id(), task));
        let released = |reason| (End::Release { reason, at_once: false }, Some(describe(None)));
        let mut refused = None;
        let flags = without_record(job.flags.as_deref());
        loop {
            if pool.identity().stop().graceful.is_cancelled() {
                return released("the host is stopping");
            }
            let task = match pool.tasks().find(&self.held.task, refused.as_ref()) {
                Ok(task) => task,
                Err(reason) => return released(reason),
            };
            if !job.is_readable {
                return (unreadable(&job.payload), Some(describe(Some(&task))));
            }
            // Nothing is made for events that nobody hears.
            let heard = pool.events().is_heard(Level::DEBUG).then(|| describe(Some(&task)));
            let crashes = Crashes::of(job);
            let (can_be_exclusive, is_host) = (task.generation.runs_alone(), task.generation.runs_in_this_process());
            let exclusive = can_be_exclusive && crashes.want_own_process(is_host);
            let outcome = self.attempt(&task, exclusive, flags.as_deref(), heard.as_deref()).await;
            let attempt = Attempt {
                job,
                max_attempts: self.held.max_attempts(&task),
                crashes,
                process: Process { exclusive, can_be_exclusive, is_host },
                max_crashes: pool.settings().max_crashes,
                was_forced: pool.running().cancel().force.is_cancelled(),
            };
            match conclude(outcome, &attempt) {
                Conclusion::Ended(End::Complete) => return (End::Complete, heard),
                Conclusion::Ended(end) => return (end, heard.or_else(|| Some(describe(Some(&task))))),
                Conclusion::DoneBut { results, message } => {
                    let run = heard.unwrap_or_else(|| describe(Some(&task)));
                    pool.events().emit(Event::ResultsIgnored { job: (*run).clone(), results, message });
                    return (End::Complete, Some(run));
                }
                Conclusion::NotStarted => refused = Some(task),
            }
        }
    }

    /// One attempt on one build. Its start is announced when the build accepts the job, and not where it refuses it.
    async fn attempt(&self, task: &Task, exclusive: bool, flags: Option<&str>, heard: Option<&JobRun>) -> Outcome {
        let announced = AtomicBool::new(false);
        let announce = || {
            if let Some(run) = heard.filter(|_| !announced.swap(true, Ordering::Relaxed)) {
                self.pool.events().emit(Event::JobStarted { job: run.clone(), map: self.held.map });
            }
        };
        let (input, cancel, generation) = (self.input(task, flags), self.pool.running().cancel(), &task.generation);
        let outcome = if exclusive {
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
