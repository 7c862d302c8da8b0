//! Test support for authors: a job with which tests call a task.
//!
//! `#[task]` leaves the function unchanged, so a test calls it like any other. [`TestJob`] provides the context and acts as
//! the host:
//!
//! ```
//! use taskbay_plugin::{prelude::*, testing::{TestJob, block_on}};
//!
//! #[task]
//! async fn welcome(ctx: Context, name: String) -> TaskResult {
//!     ctx.add_job("send_email", &json!({ "subject": format!("Hello {name}") })).await?;
//!     Ok(())
//! }
//!
//! let job = TestJob::new();
//! block_on(welcome(job.context(), "Ada".to_owned())).unwrap();
//! assert_eq!(job.added()[0]["payload"]["subject"], "Hello Ada");
//! ```
//!
//! This host has a stopped clock, which makes the times of added jobs predictable, and can refuse to add jobs:
//!
//! ```
//! use std::time::{Duration, UNIX_EPOCH};
//! use taskbay_plugin::{prelude::*, testing::TestJob};
//!
//! #[task]
//! fn remind(ctx: Context) -> TaskResult {
//!     let again = ctx.attempt() < 3;
//!     let hour = Duration::from_secs(3600);
//!     ctx.add_job("remind", &json!({ "again": again })).run_in(hour).wait().or_fail("nobody will be reminded")?;
//!     Ok(())
//! }
//!
//! let job = TestJob::new().now(UNIX_EPOCH + Duration::from_secs(1_900_000_000)).attempt(2, 25).last_error("no route");
//! remind(job.context()).unwrap();
//! assert_eq!(job.added()[0]["run_at"], "2030-03-17T18:46:40Z");
//!
//! let job = TestJob::new().refuse_jobs("the database is gone");
//! let error = remind(job.context()).unwrap_err();
//! assert_eq!(error.to_string(), "nobody will be reminded: cannot add a job for `remind`: the database is gone");
//! ```
//!
//! A batch task returns the results of its items:
//!
//! ```
//! # use taskbay_plugin::prelude::*;
//! #[task]
//! fn check(numbers: Vec<i64>) -> BatchResult {
//!     Ok(numbers.into_iter().map(|number| u8::try_from(number).map(drop).or_fail("no byte")).collect())
//! }
//!
//! let results = check(vec![7, 700, -7]).unwrap();
//! assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false]);
//! ```

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::{
    Context, Json, Setup,
    host_link::{Ended, HostLink, Line},
    job::{Call, Job, Stop, micros, time},
    new_job::Answer,
    private::Task,
};

/// A job for a test. By default, it is the first attempt of job 1, added now; its clock is stopped at a whole second.
#[derive(Debug)]
pub struct TestJob<S = ()> {
    job: Job,
    flags: BTreeMap<String, bool>,
    now: SystemTime,
    refusal: Option<String>,
    state: Arc<S>,
    cancelled: AtomicBool,
    calls: Mutex<Vec<Arc<Call>>>,
    added: Arc<Mutex<Vec<Json>>>,
}

/// The host of one call.
#[derive(Debug)]
struct TestHost {
    now: SystemTime,
    refusal: Option<String>,
    added: Arc<Mutex<Vec<Json>>>,
}

impl TestJob {
    /// A job for a task without state.
    #[must_use]
    pub fn new() -> Self {
        Self::with_state(())
    }
}

impl Default for TestJob {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> TestJob<S> {
    /// A job for a task that takes `Context<S>`.
    #[must_use]
    pub fn with_state(state: S) -> Self {
        let job = Job { id: 1, attempt: 1, max_attempts: 25, payload: "null".to_owned(), ..Job::default() };
        let this = Self {
            job,
            flags: BTreeMap::new(),
            now: SystemTime::UNIX_EPOCH,
            refusal: None,
            state: Arc::new(state),
            cancelled: AtomicBool::new(false),
            calls: Mutex::default(),
            added: Arc::default(),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        this.now(SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs()))
    }

    /// Sets the time of the stopped clock: the job was added and is due at this time, and `run_in` counts from it.
    #[must_use]
    pub fn now(mut self, now: SystemTime) -> Self {
        self.now = now;
        (self.job.created_at_us, self.job.updated_at_us) = (micros(now), micros(now));
        self.run_at(now)
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: i64) -> Self {
        self.job.id = id;
        self
    }

    /// Sets the number of the attempt, and the maximum.
    #[must_use]
    pub fn attempt(mut self, attempt: u32, of: u32) -> Self {
        self.job.attempt = attempt;
        self.job.max_attempts = of;
        self
    }

    /// Sets the payload as read through the context. A payload parameter is passed as an argument instead.
    ///
    /// # Panics
    ///
    /// When the payload cannot be serialized as JSON.
    #[must_use]
    pub fn payload<P: Serialize + ?Sized>(mut self, payload: &P) -> Self {
        self.job.payload = serde_json::to_string(payload).expect("the payload cannot be written as JSON");
        self
    }

    /// Sets the job key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.job.key = Some(key.into());
        self
    }

    /// Sets the queue.
    #[must_use]
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.job.queue = Some(name.into());
        self
    }

    /// Adds a flag. May be called several times.
    #[must_use]
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.insert(flag.into(), true);
        self.job.flags = serde_json::to_string(&self.flags).ok();
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.job.priority = priority;
        self
    }

    /// Sets the time at which the job was due.
    #[must_use]
    pub fn run_at(mut self, time: SystemTime) -> Self {
        self.job.run_at_us = micros(time);
        self
    }

    /// Sets the error of the previous attempt.
    #[must_use]
    pub fn last_error(mut self, error: impl Into<String>) -> Self {
        self.job.last_error = Some(error.into());
        self
    }

    /// Sets the time limit. It is not enforced; [`cancel`](TestJob::cancel) does what a host would do.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.job.timeout_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Makes the host refuse to add jobs, for this reason.
    #[must_use]
    pub fn refuse_jobs(mut self, reason: impl Into<String>) -> Self {
        self.refusal = Some(reason.into());
        self
    }

    /// The context for the task.
    pub fn context(&self) -> Context<S> {
        let host = TestHost { now: self.now, refusal: self.refusal.clone(), added: Arc::clone(&self.added) };
        let call = Arc::new(Call::new(1, "test", self.job.clone(), Arc::new(host)));
        self.calls().push(Arc::clone(&call));
        if self.cancelled.load(Ordering::SeqCst) {
            call.tell(Stop::Asked);
        }
        Context::new(call, Arc::clone(&self.state))
    }

    /// Tells the task to stop, as a host does after a timeout or at its shutdown.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.calls().iter().for_each(|call| call.tell(Stop::Asked));
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Arc<Call>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The jobs added by the task, as objects with `identifier`, `payload` and the options that were set: `queue_name`,
    /// `run_at` (such as `2030-01-31T12:00:00Z`), `max_attempts`, `job_key`, `job_key_mode`, `priority`, `flags`. Their ids
    /// count from 1.
    pub fn added(&self) -> Vec<Json> {
        self.added.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The schedules declared by a task.
///
/// ```
/// use taskbay_plugin::{prelude::*, testing};
///
/// #[task(schedule = "0 4 * * *")]
/// async fn clean_up() {}
///
/// assert_eq!(testing::schedules::<clean_up>(), ["0 4 * * *"]);
/// ```
#[must_use]
pub fn schedules<T: Task>() -> Vec<&'static str> {
    T::SCHEDULES.map(|lines| lines.lines().collect()).unwrap_or_default()
}

/// A setup with these settings, to test a `state:` function.
#[must_use]
pub fn setup(settings: &Json) -> Setup {
    Setup { plugin: "test", settings: settings.to_string() }
}

/// Runs an async task to its end.
///
/// # Panics
///
/// When no runtime can be created, or when the task panics.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("cannot start a runtime for the test").block_on(future)
}

impl HostLink for TestHost {
    fn finish(&self, _: u64, _: &Ended) {}

    fn log(&self, _: u64, _: &Line<'_>) {}

    fn add_job(&self, _: u64, spec: &str, answer: Answer) {
        let specs = match (&self.refusal, serde_json::from_str(spec)) {
            (Some(reason), _) => Err(reason.clone()),
            (None, specs) => specs.map_err(|error| error.to_string()),
        };
        answer.deliver(specs.map(|spec: Json| {
            let mut jobs = self.added.lock().unwrap_or_else(PoisonError::into_inner);
            let before = jobs.len();
            match spec {
                Json::Array(specs) => {
                    jobs.extend(specs.into_iter().map(for_people));
                    Json::from_iter(before + 1..=jobs.len()).to_string()
                }
                spec => {
                    jobs.push(for_people(spec));
                    jobs.len().to_string()
                }
            }
        }));
    }

    fn now(&self) -> SystemTime {
        self.now
    }

    fn max_level(&self) -> u32 {
        0
    }
}

/// The year 10000.
const END_OF_DATES: i64 = 253_402_300_800_000_000;

/// Replaces the time, in microseconds at the FFI boundary, by readable text.
fn for_people(mut spec: Json) -> Json {
    if let Some(run_at) = spec.get_mut("run_at")
        && let Some(at @ 0..END_OF_DATES) = run_at.as_i64()
    {
        let text = match at % 1_000_000 {
            0 => humantime::format_rfc3339_seconds(time(at)),
            _ => humantime::format_rfc3339_micros(time(at)),
        };
        *run_at = text.to_string().into();
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyMode;

    #[test]
    fn the_context_has_what_was_said_of_the_job() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let job = TestJob::new().now(now).id(7).attempt(2, 5).key("k").queue("q").flag("b").flag("a").priority(-3);
        let job = job.last_error("no route").payload(&[1, 2]).timeout(Duration::from_secs(30));
        let ctx = job.context();
        assert_eq!((ctx.id(), ctx.attempt(), ctx.max_attempts(), ctx.priority()), (7, 2, 5, -3));
        assert_eq!((ctx.key(), ctx.queue(), ctx.last_error()), (Some("k"), Some("q"), Some("no route")));
        assert_eq!((ctx.flags(), ctx.payload()), (vec!["a".to_owned(), "b".to_owned()], "[1,2]"));
        assert_eq!((ctx.run_at(), ctx.created_at(), ctx.updated_at()), (now, now, now));
        assert_eq!(ctx.timeout(), Some(Duration::from_secs(30)));
        assert_eq!(TestJob::new().run_at(now).context().run_at(), now);
    }

    #[test]
    fn the_times_of_added_jobs_can_be_told_in_advance() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let job = TestJob::new().now(now);
        let ctx = job.context();
        let (hour, past) = (Duration::from_secs(3600), SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        let many = [ctx.add_job("a", &1).run_in(hour), ctx.add_job("b", &1).run_at(now + Duration::from_millis(1))];
        assert_eq!(ctx.add_jobs(many).wait().unwrap(), [1, 2]);
        ctx.add_job("c", &1).key("k").key_mode(KeyMode::PreserveRunAt).run_at(past).wait().unwrap();
        ctx.add_job("d", &1).wait().unwrap();
        let times: Vec<Json> = job.added().iter().map(|job| job["run_at"].clone()).collect();
        assert_eq!(
            Json::Array(times),
            crate::json!(["2023-11-14T23:13:20Z", "2023-11-14T22:13:20.001000Z", -1_000_000, null])
        );
        let of_now = micros(TestJob::new().context().run_at());
        assert_eq!(of_now % 1_000_000, 0, "a clock that stands still can stand at a whole second");
    }

    #[test]
    fn a_host_that_refuses_adds_nothing() {
        let job = TestJob::new().refuse_jobs("the database is gone");
        let error = job.context().add_job("a", &1).wait().unwrap_err();
        assert_eq!(error.to_string(), "cannot add a job for `a`: the database is gone");
        let error = block_on(async { job.context().add_jobs([job.context().add_job("a", &1)]).await.unwrap_err() });
        assert_eq!(error.to_string(), "cannot add 1 job: the database is gone");
        assert!(job.added().is_empty());
    }
}
