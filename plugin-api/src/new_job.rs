//! Adding jobs from a task.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::SystemTime,
};

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use tokio::sync::oneshot;

use crate::{dispatch, error::TaskError};

/// What happens to a job that already has the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyMode {
    /// It gets all that the new one says.
    #[default]
    Replace,
    /// It gets all but the time, unless it has failed before.
    PreserveRunAt,
    /// It stays as it is, even if it has failed for good.
    UnsafeDedupe,
}

/// A job that is being put together, made by [`Context::add_job`](crate::Context::add_job). `.await` adds it and gives its
/// id.
#[derive(Debug)]
#[must_use = "the job is added by `.await` or `.wait()`"]
pub struct NewJob {
    call: u64,
    spec: Map<String, Value>,
    /// Kept as text: numbers and keys of a payload stay as they were written.
    payload: Result<Box<RawValue>, serde_json::Error>,
}

impl NewJob {
    pub(crate) fn new(call: u64, task: String, payload: &impl Serialize) -> Self {
        let spec = Map::from_iter([("identifier".to_owned(), Value::from(task))]);
        Self { call, spec, payload: serde_json::value::to_raw_value(payload) }
    }

    fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.spec.insert(field.to_owned(), value.into());
        self
    }

    /// Runs it in this queue: the jobs of one queue run one after another.
    pub fn queue(self, name: impl Into<String>) -> Self {
        self.with("queue_name", name.into())
    }

    /// Runs it at this time, or as soon as possible afterwards.
    pub fn run_at(self, time: SystemTime) -> Self {
        let micros = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        self.with("run_at", micros)
    }

    /// How often it may be tried; 25 times unless said.
    pub fn max_attempts(self, attempts: u32) -> Self {
        self.with("max_attempts", attempts)
    }

    /// A smaller number runs earlier; 0 unless said.
    pub fn priority(self, priority: i32) -> Self {
        self.with("priority", priority)
    }

    /// The job's key: at most one waiting job has it, and adding it again changes that one.
    pub fn key(self, key: impl Into<String>) -> Self {
        self.with("job_key", key.into())
    }

    /// What happens to a job that already has the key.
    pub fn key_mode(self, mode: KeyMode) -> Self {
        self.with(
            "job_key_mode",
            match mode {
                KeyMode::Replace => "replace",
                KeyMode::PreserveRunAt => "preserve_run_at",
                KeyMode::UnsafeDedupe => "unsafe_dedupe",
            },
        )
    }

    /// Marks the job; workers may be told to leave jobs with certain flags alone.
    pub fn flags(self, flags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let flags: Vec<Value> = flags.into_iter().map(|flag| Value::from(flag.into())).collect();
        self.with("flags", flags)
    }

    /// Adds it and blocks until that is done; for plain `fn` tasks.
    ///
    /// # Errors
    ///
    /// When the database refuses it, with the reason.
    ///
    /// # Panics
    ///
    /// In an `async fn`: use `.await` there.
    pub fn wait(self) -> Result<i64, TaskError> {
        let answer = self.send()?;
        receive(answer.blocking_recv())
    }

    fn send(self) -> Result<oneshot::Receiver<Result<i64, String>>, TaskError> {
        let payload =
            self.payload.map_err(|error| TaskError::from(error).context("a new job's payload is not JSON"))?;
        let mut spec = Value::Object(self.spec).to_string();
        // The payload's text goes in as it is.
        spec.truncate(spec.len() - 1);
        spec.push_str(",\"payload\":");
        spec.push_str(payload.get());
        spec.push('}');
        Ok(dispatch::add_job(self.call, &spec))
    }
}

fn receive(answer: Result<Result<i64, String>, oneshot::error::RecvError>) -> Result<i64, TaskError> {
    match answer {
        Ok(Ok(id)) => Ok(id),
        Ok(Err(message)) => Err(TaskError::new(format_args!("could not add a job: {message}"))),
        Err(_) => Err(TaskError::new("could not add a job: the plugin is shutting down")),
    }
}

impl IntoFuture for NewJob {
    type Output = Result<i64, TaskError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { receive(self.send()?.await) })
    }
}
