//! A job to call a task with in the author's own tests.
//!
//! `#[task]` leaves the function as it was, so a test calls it like any other. [`TestJob`] makes the context and plays the
//! host:
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
//! A batch task gives the results of its items:
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

use crate::{
    Context, Json, Setup,
    host_link::{Ended, HostLink, Line},
    job::{Call, Job, Stop, micros},
    new_job::Answer,
    private::Task,
};
use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

/// A job that exists only in a test. It is the first attempt of the job 1, added now.
#[derive(Debug)]
pub struct TestJob<S = ()> {
    job: Job,
    state: Arc<S>,
    cancelled: AtomicBool,
    calls: Mutex<Vec<Arc<Call>>>,
    host: Arc<TestHost>,
}

#[derive(Debug, Default)]
struct TestHost {
    added: Mutex<Vec<Json>>,
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
        let now = micros(SystemTime::now());
        let times = Job { run_at_us: now, created_at_us: now, updated_at_us: now, ..Job::default() };
        let job = Job { id: 1, attempt: 1, max_attempts: 25, payload: "null".to_owned(), ..times };
        let (cancelled, calls) = (AtomicBool::new(false), Mutex::default());
        Self { job, state: Arc::new(state), cancelled, calls, host: Arc::default() }
    }

    /// Another id.
    #[must_use]
    pub fn id(mut self, id: i64) -> Self {
        self.job.id = id;
        self
    }

    /// Another attempt, of this many.
    #[must_use]
    pub fn attempt(mut self, attempt: u32, of: u32) -> Self {
        self.job.attempt = attempt;
        self.job.max_attempts = of;
        self
    }

    /// The context to call the task with.
    pub fn context(&self) -> Context<S> {
        let link: Arc<dyn HostLink> = self.host.clone();
        let call = Arc::new(Call::new(1, "test", self.job.clone(), link));
        self.calls().push(Arc::clone(&call));
        if self.cancelled.load(Ordering::SeqCst) {
            call.tell(Stop::Asked);
        }
        Context::new(call, Arc::clone(&self.state))
    }

    /// Tells the task to stop, as the host does at its timeout or shutdown.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.calls().iter().for_each(|call| call.tell(Stop::Asked));
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Arc<Call>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The jobs that the task added, as objects with `identifier`, `payload` and what else was set. Their ids count from 1.
    pub fn added(&self) -> Vec<Json> {
        self.host.added.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The schedules that a task declares.
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

/// A setup with these settings, for testing a `state:` function.
#[must_use]
pub fn setup(settings: &Json) -> Setup {
    Setup { plugin: "test", settings: settings.to_string() }
}

/// Runs an async task to its end.
///
/// # Panics
///
/// When the system cannot give it what a runtime needs, or when the task panics.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("cannot start a runtime for the test").block_on(future)
}

impl HostLink for TestHost {
    fn finish(&self, _: u64, _: &Ended) {}

    fn log(&self, _: u64, _: &Line<'_>) {}

    fn add_job(&self, _: u64, spec: &str, answer: Answer) {
        let added = serde_json::from_str(spec).map_err(|error| error.to_string()).map(|spec: Json| {
            let mut jobs = self.added.lock().unwrap_or_else(PoisonError::into_inner);
            let before = jobs.len();
            match spec {
                Json::Array(specs) => {
                    jobs.extend(specs);
                    Json::from_iter(before + 1..=jobs.len()).to_string()
                }
                spec => {
                    jobs.push(spec);
                    jobs.len().to_string()
                }
            }
        });
        answer.deliver(added);
    }

    fn max_level(&self) -> u32 {
        0
    }
}
