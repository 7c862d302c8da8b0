//! What a task knows of its job.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Notify;

use crate::{error::TaskError, new_job::NewJob, setup::AnyState};

/// One job under way, as the dispatcher keeps it.
#[derive(Debug)]
pub(crate) struct CallState {
    /// The host's name for this run.
    pub(crate) call: u64,
    pub(crate) task: &'static str,
    pub(crate) job: JobFields,
    cancelled: AtomicBool,
    cancel_told: Notify,
    /// Left here by the panic hook for the catcher.
    pub(crate) panic: Mutex<Option<String>>,
}

/// The job, copied out of the host's memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobFields {
    pub(crate) id: i64,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    pub(crate) priority: i32,
    pub(crate) revision: i32,
    pub(crate) run_at_us: i64,
    pub(crate) created_at_us: i64,
    pub(crate) updated_at_us: i64,
    pub(crate) timeout_ms: u64,
    pub(crate) payload: String,
    pub(crate) queue: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) flags: Option<String>,
}

impl CallState {
    pub(crate) fn new(call: u64, task: &'static str, job: JobFields) -> Self {
        Self { call, task, job, cancelled: AtomicBool::new(false), cancel_told: Notify::new(), panic: Mutex::new(None) }
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.cancel_told.notify_waiters();
    }

    pub(crate) fn take_panic(&self) -> Option<String> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A call on its way to the task's function: gives it the arguments that it asks for.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct Call {
    pub(crate) state: Arc<CallState>,
    pub(crate) plugin_state: AnyState,
}

impl Call {
    #[doc(hidden)]
    pub fn context<S: Send + Sync + 'static>(&self) -> Context<S> {
        let state = Arc::clone(&self.plugin_state).downcast().ok();
        Context { call: Arc::clone(&self.state), state }
    }

    #[doc(hidden)]
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, TaskError> {
        serde_json::from_str(&self.state.job.payload)
            .map_err(|error| TaskError::new(format_args!("the payload does not fit task {}: {error}", self.state.task)))
    }
}

/// The job that a task runs for. Cheap to clone.
///
/// `S` is the plugin's state; a task that does not use it takes a plain `Context`.
pub struct Context<S = ()> {
    call: Arc<CallState>,
    state: Option<Arc<S>>,
}

impl<S> Context<S> {
    /// The job's id.
    pub fn id(&self) -> i64 {
        self.call.job.id
    }

    /// The identifier of the task.
    pub fn task(&self) -> &str {
        self.call.task
    }

    /// Which attempt this is, from 1. An attempt that ended with its worker's crash counts too.
    pub fn attempt(&self) -> u32 {
        self.call.job.attempt
    }

    /// At which attempt a failure is final.
    pub fn max_attempts(&self) -> u32 {
        self.call.job.max_attempts
    }

    /// The job's priority; a smaller number runs earlier.
    pub fn priority(&self) -> i32 {
        self.call.job.priority
    }

    /// When the job was due.
    pub fn run_at(&self) -> SystemTime {
        time(self.call.job.run_at_us)
    }

    /// When the job was added.
    pub fn created_at(&self) -> SystemTime {
        time(self.call.job.created_at_us)
    }

    /// When the job was last changed through its key.
    pub fn updated_at(&self) -> SystemTime {
        time(self.call.job.updated_at_us)
    }

    /// How often the job was changed through its key.
    pub fn revision(&self) -> i32 {
        self.call.job.revision
    }

    /// The name of the job's queue: jobs of one queue run one after another.
    pub fn queue(&self) -> Option<&str> {
        self.call.job.queue.as_deref()
    }

    /// The job's key.
    pub fn key(&self) -> Option<&str> {
        self.call.job.key.as_deref()
    }

    /// The job's flags, as a JSON object whose keys they are.
    pub fn flags(&self) -> Option<&str> {
        self.call.job.flags.as_deref()
    }

    /// Why the attempt before this one failed.
    pub fn last_error(&self) -> Option<&str> {
        self.call.job.last_error.as_deref()
    }

    /// The payload as JSON text, byte for byte as Postgres keeps it.
    pub fn payload(&self) -> &str {
        &self.call.job.payload
    }

    /// How long the job may run in all.
    pub fn timeout(&self) -> Option<Duration> {
        Some(self.call.job.timeout_ms).filter(|ms| *ms > 0).map(Duration::from_millis)
    }

    /// Whether the job was told to stop: its time is up, or the host is stopping. A long plain `fn` looks here now and then.
    pub fn is_cancelled(&self) -> bool {
        self.call.cancelled.load(Ordering::Acquire)
    }

    /// Ends when the job is told to stop. The task may then finish what it is at and return; one that does not return
    /// within a grace period is dropped at an await point.
    ///
    /// ```no_run
    /// use taskbay_plugin::prelude::*;
    ///
    /// #[task]
    /// async fn export(ctx: Context, rows: Vec<String>) -> TaskResult {
    ///     for row in rows {
    ///         taskbay_plugin::tokio::select! {
    ///             () = ctx.cancelled() => return Err("stopped half-way; the next attempt goes on")?,
    ///             () = write(&row) => {}
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// # async fn write(_row: &str) {}
    /// ```
    pub async fn cancelled(&self) {
        let told = self.call.cancel_told.notified();
        tokio::pin!(told);
        // Registers before the look at the flag, so that a cancellation in between is heard.
        told.as_mut().enable();
        if !self.is_cancelled() {
            told.await;
        }
    }

    /// A new job, to be completed and added with `.await`, or with [`NewJob::wait`] in a plain `fn`.
    ///
    /// It is added at once, whether or not this job succeeds later.
    ///
    /// ```no_run
    /// use std::time::{Duration, SystemTime};
    ///
    /// use taskbay_plugin::prelude::*;
    ///
    /// #[task]
    /// async fn sign_up(ctx: Context, user: i64) -> TaskResult {
    ///     let in_a_day = SystemTime::now() + Duration::from_secs(86_400);
    ///     let id = ctx.add_job("remind", json!({ "user": user })).run_at(in_a_day).key(format!("remind-{user}")).await?;
    ///     info!(id, "will remind");
    ///     Ok(())
    /// }
    /// ```
    pub fn add_job(&self, task: impl Into<String>, payload: impl Serialize) -> NewJob {
        NewJob::new(self.call.call, task.into(), &payload)
    }
}

impl<S: Send + Sync + 'static> Context<S> {
    /// The plugin's state, built once per build.
    pub fn state(&self) -> &S {
        match &self.state {
            Some(state) => state,
            // `plugin!` checks that the plugin's state is of the type that each task asks for; only `()` is given to tasks
            // of any plugin.
            None => (&() as &'static (dyn Any + Send + Sync)).downcast_ref().expect("plugin! checked the state's type"),
        }
    }
}

impl<S> Clone for Context<S> {
    fn clone(&self) -> Self {
        Self { call: Arc::clone(&self.call), state: self.state.clone() }
    }
}

impl<S> fmt::Debug for Context<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("call", &self.call).finish_non_exhaustive()
    }
}

fn time(micros: i64) -> SystemTime {
    let span = Duration::from_micros(micros.unsigned_abs());
    if micros < 0 { SystemTime::UNIX_EPOCH - span } else { SystemTime::UNIX_EPOCH + span }
}
