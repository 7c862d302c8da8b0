//! Jobs added by tasks.

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

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::{runtime::Handle, sync::oneshot};

use crate::{TaskError, host_link::HostLink, job::micros, panics};

/// A job to add.
///
/// A job from [`Context::add_job`](crate::Context::add_job) is added by `.await` in an async task and by
/// [`wait`](NewJob::wait) in a plain one; either returns the new job's id. A job from [`NewJob::new`] is an argument for
/// [`Context::add_jobs`](crate::Context::add_jobs).
#[must_use = "a job is added only by `.await`, `.wait()` or `add_jobs`"]
pub struct NewJob<By = Unsent> {
    by: By,
    spec: Spec,
    due: Due,
    payload: Result<Box<RawValue>, serde_json::Error>,
}

/// Several jobs to add, from [`Context::add_jobs`](crate::Context::add_jobs).
///
/// `.await` adds them in an async task, [`wait`](NewJobs::wait) in a plain one. Either returns their ids in the same order.
#[must_use = "jobs are added only by `.await` or `.wait()`"]
pub struct NewJobs {
    by: OnHost,
    jobs: Vec<NewJob>,
}

/// Marks a [`NewJob`] without a host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unsent;

/// Marks a [`NewJob`] that can be added through its host.
#[derive(Clone)]
pub struct OnHost {
    link: Arc<dyn HostLink>,
    call: u64,
}

/// What happens to a waiting job with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyMode {
    /// The new job replaces it.
    #[default]
    Replace,
    /// The new job replaces it, but keeps its due time.
    PreserveRunAt,
    /// It stays unchanged and nothing is added, even if it is running or has failed for good.
    UnsafeDedupe,
}

/// When a job is due.
#[derive(Default)]
enum Due {
    #[default]
    AtOnce,
    At(SystemTime),
    After(Duration),
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
    /// A job for [`Context::add_jobs`](crate::Context::add_jobs).
    pub fn new<P: Serialize + ?Sized>(task: impl Into<String>, payload: &P) -> Self {
        let spec = Spec { identifier: task.into(), ..Spec::default() };
        Self { by: Unsent, spec, due: Due::AtOnce, payload: serde_json::value::to_raw_value(payload) }
    }
}

impl<By> NewJob<By> {
    pub(crate) fn by<Other>(self, by: Other) -> NewJob<Other> {
        NewJob { by, spec: self.spec, due: self.due, payload: self.payload }
    }

    /// The queue; the jobs of a queue run one after the other.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.spec.queue_name = Some(name.into());
        self
    }

    /// The time at which the job is due; at once by default.
    pub fn run_at(mut self, time: SystemTime) -> Self {
        self.due = Due::At(time);
        self
    }

    /// The job is due this long after it is added, by the clock of this machine.
    pub fn run_in(mut self, delay: Duration) -> Self {
        self.due = Due::After(delay);
        self
    }

    /// The priority; smaller numbers run first. The default is 0.
    pub fn priority(mut self, priority: i32) -> Self {
        self.spec.priority = Some(priority);
        self
    }

    /// The maximum number of attempts. The default is 25.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.spec.max_attempts = Some(attempts);
        self
    }

    /// The key; at most one job with this key waits. A new one replaces it.
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

    /// Sets a flag; workers can be told to skip jobs with certain flags. May be called several times.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.spec.flags.push(flag.into());
        self
    }

    fn into_spec(self, link: &dyn HostLink) -> Result<Spec, TaskError> {
        let Self { mut spec, due, payload, .. } = self;
        spec.run_at = match due {
            Due::AtOnce => None,
            Due::At(time) => Some(micros(time)),
            // Saturates at the latest time that can be stored.
            Due::After(delay) => Some(link.now().checked_add(delay).map_or(i64::MAX, micros)),
        };
        let payload = payload.map_err(|error| {
            TaskError::new(format!("cannot write the payload of the new job `{}` as JSON: {error}", spec.identifier))
        })?;
        spec.payload = Some(payload);
        Ok(spec)
    }
}

impl NewJob<OnHost> {
    /// Adds the job and waits for its id, in a plain task.
    ///
    /// # Errors
    ///
    /// When the payload cannot be serialized as JSON, when the host could not add the job, and in an async task, where
    /// waiting would block the thread (use `.await` there). In each case, no job is added.
    pub fn wait(self) -> Result<i64, TaskError> {
        refuse_in_async_code(&self.to_string())?;
        let (what, pending) = self.send()?;
        read(&what, pending.wait())
    }

    fn send(self) -> Result<(String, Pending), TaskError> {
        let (by, what) = (self.by.clone(), self.to_string());
        Ok((what, by.request(&self.into_spec(&*by.link)?)?))
    }
}

impl NewJobs {
    pub(crate) fn new<By>(by: OnHost, jobs: impl IntoIterator<Item = NewJob<By>>) -> Self {
        Self { by, jobs: jobs.into_iter().map(|job| job.by(Unsent)).collect() }
    }

    /// Adds the jobs and waits for their ids, in a plain task.
    ///
    /// # Errors
    ///
    /// When a payload cannot be serialized as JSON, when the host could not add the jobs, and in an async task, where
    /// waiting would block the thread (use `.await` there). In each case, no job is added.
    pub fn wait(self) -> Result<Vec<i64>, TaskError> {
        refuse_in_async_code(&self.to_string())?;
        if self.jobs.is_empty() {
            return Ok(Vec::new());
        }
        let (what, pending) = self.send()?;
        read(&what, pending.wait())
    }

    fn send(self) -> Result<(String, Pending), TaskError> {
        let what = self.to_string();
        let specs =
            self.jobs.into_iter().map(|job| job.into_spec(&*self.by.link)).collect::<Result<Vec<Spec>, TaskError>>()?;
        Ok((what, self.by.request(&specs)?))
    }
}

impl fmt::Display for NewJob<OnHost> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a job for `{}`", self.spec.identifier)
    }
}

impl fmt::Display for NewJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} job{}", self.jobs.len(), if self.jobs.len() == 1 { "" } else { "s" })
    }
}

/// Checked before the request is sent: a task that cannot receive the answer would add its job again at each attempt.
fn refuse_in_async_code(what: &str) -> Result<(), TaskError> {
    if !runs_async_code() {
        return Ok(());
    }
    Err(TaskError::new(format!(
        "cannot add {what}: `.wait()` would block the thread of an async task; write `.await` instead"
    )))
}

/// Whether this thread runs async code. tokio has no query for this, and panics when such a thread is blocked.
fn runs_async_code() -> bool {
    if Handle::try_current().is_err() {
        return false;
    }
    let (answer, receiver) = oneshot::channel();
    let _ = answer.send(());
    panics::would_panic(|| drop(receiver.blocking_recv()))
}

impl OnHost {
    pub(crate) fn new(link: &Arc<dyn HostLink>, call: u64) -> Self {
        Self { link: Arc::clone(link), call }
    }

    fn request(&self, spec: &impl Serialize) -> Result<Pending, TaskError> {
        let text = serde_json::to_string(spec)?;
        let (pending, answer) = Pending::new();
        self.link.add_job(self.call, &text, answer);
        Ok(pending)
    }
}

impl fmt::Debug for OnHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnHost").field("call", &self.call).finish_non_exhaustive()
    }
}

impl IntoFuture for NewJobs {
    type Output = Result<Vec<i64>, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            if self.jobs.is_empty() {
                return Ok(Vec::new());
            }
            let (what, pending) = self.send()?;
            read(&what, pending.answer().await)
        })
    }
}

impl fmt::Debug for NewJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.jobs).finish()
    }
}

impl IntoFuture for NewJob<OnHost> {
    type Output = Result<i64, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (what, pending) = self.send()?;
            read(&what, pending.answer().await)
        })
    }
}

impl<By> fmt::Debug for NewJob<By> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewJob").field("task", &self.spec.identifier).finish_non_exhaustive()
    }
}

/// Reads the host's answer: an id, or an array of them.
fn read<T: DeserializeOwned>(what: &str, answer: Result<Added, oneshot::error::RecvError>) -> Result<T, TaskError> {
    let added = answer.unwrap_or_else(|_| Err("the host did not answer".to_owned()));
    let told = added.and_then(|detail| {
        serde_json::from_str(&detail).map_err(|_| format!("the host answered {detail:.40} instead of an id"))
    });
    told.map_err(|reason| TaskError::new(format!("cannot add {what}: {reason}")))
}

/// The ids as JSON, or the reason for the refusal.
type Added = Result<String, String>;

/// Requests without an answer yet. Numbers instead of pointers cross the FFI boundary: a late or second answer finds no
/// entry in this table and is ignored.
static UNANSWERED: Mutex<Option<HashMap<u64, oneshot::Sender<Added>>>> = Mutex::new(None);

fn unanswered<R>(change: impl FnOnce(&mut HashMap<u64, oneshot::Sender<Added>>) -> R) -> R {
    change(UNANSWERED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// The host's end of a request, as a number that crosses the FFI boundary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer(pub(crate) u64);

impl Answer {
    pub(crate) fn deliver(self, added: Added) {
        if let Some(waiting) = unanswered(|requests| requests.remove(&self.0)) {
            // The task may have stopped waiting.
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
        // `blocking_recv` takes the receiver by value, and this type has a destructor.
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
