//! A job that a task adds.

use std::{
    collections::HashMap,
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::{TaskError, host_link::HostLink, job::micros};

/// A job that is about to be added: made by [`Context::add_job`](crate::Context::add_job).
///
/// `.await` adds it from an async task, [`wait`](NewJob::wait) from a plain one. Either gives the new job's id.
#[must_use = "a job is added only by `.await` or `.wait()`"]
pub struct NewJob {
    link: Arc<dyn HostLink>,
    call: u64,
    spec: Spec,
    payload: Result<Box<RawValue>, serde_json::Error>,
}

/// What happens to a job with the same key that is still waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyMode {
    /// The new job takes its place.
    #[default]
    Replace,
    /// The new job takes its place, but the time at which it is due stays.
    PreserveRunAt,
    /// It stays as it is and nothing is added, even if it is running or has failed for good.
    UnsafeDedupe,
}

#[derive(Serialize, Default)]
struct Spec {
    identifier: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_key_mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<String>,
}

impl NewJob {
    pub(crate) fn new<P: Serialize + ?Sized>(
        link: &Arc<dyn HostLink>,
        call: u64,
        task: impl Into<String>,
        payload: &P,
    ) -> Self {
        let spec = Spec { identifier: task.into(), ..Spec::default() };
        Self { link: Arc::clone(link), call, spec, payload: serde_json::value::to_raw_value(payload) }
    }

    /// The jobs of one queue run one after the other.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.spec.queue_name = Some(name.into());
        self
    }

    /// When the job is due. Without this it is due at once.
    pub fn run_at(mut self, time: SystemTime) -> Self {
        self.spec.run_at = Some(micros(time));
        self
    }

    /// The job is due after this time, by the clock of this machine.
    pub fn run_in(self, delay: Duration) -> Self {
        self.run_at(SystemTime::now() + delay)
    }

    /// A smaller number runs earlier. Without this it is 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.spec.priority = Some(priority);
        self
    }

    /// How many attempts the job has. Without this it is 25.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.spec.max_attempts = Some(attempts);
        self
    }

    /// There is at most one waiting job with this key; the new one takes the place of the old one.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.spec.job_key = Some(key.into());
        self
    }

    /// What happens to the waiting job with the same [`key`](NewJob::key).
    pub fn key_mode(mut self, mode: KeyMode) -> Self {
        self.spec.job_key_mode = Some(match mode {
            KeyMode::Replace => "replace",
            KeyMode::PreserveRunAt => "preserve_run_at",
            KeyMode::UnsafeDedupe => "unsafe_dedupe",
        });
        self
    }

    /// Sets a flag, by which workers can leave the job out. May be called several times.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.spec.flags.push(flag.into());
        self
    }

    /// Adds the job and waits, for plain tasks.
    ///
    /// # Errors
    ///
    /// When the payload cannot be written as JSON, or the host could not add the job.
    ///
    /// # Panics
    ///
    /// In an async task, which it would block: write `.await` there.
    pub fn wait(self) -> Result<i64, TaskError> {
        let (task, pending) = self.send()?;
        pending.wait().unwrap_or_else(no_answer).map_err(|reason| refused(&task, &reason))
    }

    async fn add(self) -> Result<i64, TaskError> {
        let (task, pending) = self.send()?;
        pending.answer().await.unwrap_or_else(no_answer).map_err(|reason| refused(&task, &reason))
    }

    fn send(self) -> Result<(String, Pending), TaskError> {
        let Self { link, call, mut spec, payload } = self;
        let written = payload.and_then(|payload| {
            spec.payload = Some(payload);
            serde_json::to_string(&spec)
        });
        let text = written.map_err(|error| {
            TaskError::new(format!("cannot write the payload of the new job `{}` as JSON: {error}", spec.identifier))
        })?;
        let (pending, answer) = Pending::new();
        link.add_job(call, &text, answer);
        Ok((spec.identifier, pending))
    }
}

impl IntoFuture for NewJob {
    type Output = Result<i64, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.add())
    }
}

impl fmt::Debug for NewJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewJob").field("task", &self.spec.identifier).finish_non_exhaustive()
    }
}

fn refused(task: &str, reason: &str) -> TaskError {
    TaskError::new(format!("cannot add a job for `{task}`: {reason}"))
}

fn no_answer(_: oneshot::error::RecvError) -> Result<i64, String> {
    Err("the host did not answer".to_owned())
}

type Added = Result<i64, String>;

/// Requests that the host has not answered. Numbers cross the border instead of pointers, so that an answer which comes
/// late or twice finds nothing here and does no harm.
static UNANSWERED: Mutex<Option<HashMap<u64, oneshot::Sender<Added>>>> = Mutex::new(None);

fn unanswered<R>(change: impl FnOnce(&mut HashMap<u64, oneshot::Sender<Added>>) -> R) -> R {
    change(UNANSWERED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// The host's end of a request, as a number that crosses the border.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer(pub(crate) u64);

impl Answer {
    pub(crate) fn deliver(self, added: Added) {
        if let Some(waiting) = unanswered(|requests| requests.remove(&self.0)) {
            // The task may have stopped waiting just now.
            let _ = waiting.send(added);
        }
    }
}

/// The task's end of a request; dropping it withdraws the request from the table.
struct Pending {
    request: u64,
    receiver: oneshot::Receiver<Added>,
}

impl Pending {
    fn new() -> (Self, Answer) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let request = NEXT.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        unanswered(|requests| requests.insert(request, sender));
        (Self { request, receiver }, Answer(request))
    }

    fn wait(mut self) -> Result<Added, oneshot::error::RecvError> {
        // A oneshot receiver can be waited for in place only by value, and this type has a destructor.
        std::mem::replace(&mut self.receiver, oneshot::channel().1).blocking_recv()
    }

    async fn answer(mut self) -> Result<Added, oneshot::error::RecvError> {
        (&mut self.receiver).await
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        unanswered(|requests| requests.remove(&self.request));
    }
}
