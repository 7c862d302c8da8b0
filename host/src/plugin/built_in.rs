//! The runner for tasks compiled into this program: each job is a task of the host's own runtime.
//!
//! A panic ends only its job. Code that never reaches an await point cannot be stopped.

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use taskbay_abi::{STATUS_CANCELLED, STATUS_DISCARD, STATUS_ERROR, STATUS_OK, STATUS_PANIC, STATUS_PARTLY_FAILED};
use tokio::{task::AbortHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use super::{
    Accepted, FailedItems, JobInput, ManifestInfo, TaskSpec,
    calls::{Call, CallEnd, Calls},
};

/// A task compiled into this program.
#[derive(Clone)]
pub struct BuiltInTask {
    /// The declaration.
    pub spec: TaskSpec,
    /// The code.
    pub code: Arc<dyn TaskCode>,
}

/// Runs the jobs of one task.
pub trait TaskCode: Send + Sync + 'static {
    /// Runs a job. `cancelled` fires when the job is asked to end.
    fn run(&self, job: &JobInput<'_>, cancelled: CancellationToken) -> TaskRun;
}

/// A job on its way to its end.
pub type TaskRun = Pin<Box<dyn Future<Output = TaskEnd> + Send>>;

/// The result of a task's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEnd {
    Done,
    /// The job is retried.
    Failed(String),
    /// The job fails for good.
    Discarded(String),
    /// The payload is an array, and the job is retried with its failed items.
    PartlyFailed {
        items: FailedItems,
        message: String,
    },
}

impl fmt::Debug for BuiltInTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

/// All tasks of this program.
#[derive(Debug)]
pub(super) struct BuiltIn {
    tasks: Vec<BuiltInTask>,
    jobs: Arc<Jobs>,
    tracker: TaskTracker,
}

/// The running jobs.
#[derive(Debug, Default)]
struct Jobs {
    calls: Arc<Calls>,
    running: Mutex<HashMap<u64, Running>>,
}

#[derive(Debug)]
struct Running {
    ask: CancellationToken,
    abort: AbortHandle,
}

/// Reports the end of a job, even if it is aborted.
struct Report {
    jobs: Arc<Jobs>,
    call: u64,
    end: Option<CallEnd>,
}

impl BuiltIn {
    /// The error names the broken rule.
    pub(super) fn new(tasks: Vec<BuiltInTask>) -> Result<(Self, ManifestInfo), String> {
        let manifest = ManifestInfo {
            name: "built-in".to_owned(),
            version: String::new(),
            sdk: env!("CARGO_PKG_VERSION").to_owned(),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            abi: (1, 0),
            panic_abort: cfg!(panic = "abort"),
            tasks: tasks.iter().map(|task| task.spec.clone()).collect(),
        };
        manifest.validate()?;
        Ok((Self { tasks, jobs: Arc::default(), tracker: TaskTracker::new() }, manifest))
    }

    /// Starts a job; `None` after the shutdown.
    pub(super) fn start(&self, task: u32, job: &JobInput<'_>, accepted: Accepted<'_>) -> Option<Call> {
        let call = self.jobs.calls.begin(job.id, task)?;
        let ask = CancellationToken::new();
        let code = &self.tasks.get(task as usize)?.code;
        accepted();
        let report = Report { jobs: Arc::clone(&self.jobs), call: call.id, end: None };
        // Even this part runs foreign code, a log subscriber, which may panic.
        let run = match std::panic::catch_unwind(AssertUnwindSafe(|| code.run(job, ask.clone()))) {
            Ok(run) => run,
            Err(panic) => {
                report.deliver(panicked(&*panic));
                return Some(call);
            }
        };
        // Held until the job is registered: its report, which removes it, waits for this lock.
        let mut running = self.jobs.running();
        let spawned = self.tracker.spawn(async move {
            let end = AssertUnwindSafe(run).catch_unwind().await;
            report.deliver(end.map_or_else(|panic| panicked(&*panic), CallEnd::from));
        });
        running.insert(call.id, Running { ask, abort: spawned.abort_handle() });
        Some(call)
    }

    /// Asks a job to end; it may continue.
    pub(super) fn ask(&self, call: u64) {
        if let Some(job) = self.jobs.running().get(&call) {
            job.ask.cancel();
        }
    }

    /// Aborts a job at its next await point.
    pub(super) fn abort(&self, call: u64) {
        if let Some(job) = self.jobs.running().get(&call) {
            job.abort.abort();
        }
    }

    /// Ends the running jobs.
    pub(super) async fn shutdown(&self, limit: Duration) {
        self.abort_all();
        self.tracker.close();
        if timeout(limit, self.tracker.wait()).await.is_err() {
            warn!("{} jobs of this program's own tasks do not end, and cannot be stopped", self.tracker.len());
        }
        self.jobs.calls.close("the host ended while it ran this job");
    }

    fn abort_all(&self) {
        for job in self.jobs.running().values() {
            job.ask.cancel();
            job.abort.abort();
        }
    }
}

impl Drop for BuiltIn {
    fn drop(&mut self) {
        self.abort_all();
    }
}

impl Jobs {
    fn running(&self) -> MutexGuard<'_, HashMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    fn deliver(mut self, end: CallEnd) {
        self.end = Some(end);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.jobs.running().remove(&self.call);
        let aborted = || CallEnd::Reported { status: STATUS_CANCELLED, message: None, detail: None };
        self.jobs.calls.finish(self.call, self.end.take().unwrap_or_else(aborted));
    }
}

impl From<TaskEnd> for CallEnd {
    fn from(end: TaskEnd) -> Self {
        let (status, message, detail) = match end {
            TaskEnd::Done => (STATUS_OK, None, None),
            TaskEnd::Failed(message) => (STATUS_ERROR, Some(message), None),
            TaskEnd::Discarded(message) => (STATUS_DISCARD, Some(message), None),
            TaskEnd::PartlyFailed { items, message } => {
                (STATUS_PARTLY_FAILED, Some(message), serde_json::to_string(&items).ok())
            }
        };
        CallEnd::Reported { status, message, detail }
    }
}

fn panicked(panic: &(dyn Any + Send)) -> CallEnd {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = format!("panicked: {}", text.unwrap_or("it did not say why"));
    CallEnd::Reported { status: STATUS_PANIC, message: Some(message), detail: None }
}
