//! The tasks that are compiled into a program.

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    job_context::{JobContext, Surroundings},
    task_error::TaskResult,
};
use crate::plugin::{BuiltInTask, JobInput, TaskCode, TaskEnd, TaskRun, TaskSpec};

/// Tasks by their names. Cheap to clone.
///
/// A task is a function of its payload, as a type that serde reads from JSON, and of its [`JobContext`]:
///
/// ```
/// use taskbay::{JobContext, TaskError, TaskList};
///
/// #[derive(serde::Deserialize)]
/// struct SendEmail {
///     to: String,
/// }
///
/// let tasks = TaskList::new().task("send_email", |mail: SendEmail, job: JobContext| async move {
///     if !mail.to.contains('@') {
///         return Err(TaskError::discard(format!("{} is no address", mail.to)));
///     }
///     tracing::info!(to = mail.to, "sending, attempt {}", job.attempt());
///     tokio::fs::write("/tmp/outbox", &mail.to).await?;
///     Ok(())
/// });
/// assert_eq!(tasks.names().collect::<Vec<_>>(), ["send_email"]);
/// ```
///
/// Its jobs run on the runtime that the host runs on, many at once: what blocks a thread belongs into
/// [`tokio::task::spawn_blocking`]. A panic fails its job and nothing else. A payload that does not fit the type fails the
/// job, which is tried again, since the next version of the program may know better.
#[derive(Debug, Clone, Default)]
pub struct TaskList {
    tasks: BTreeMap<String, TaskDefinition>,
}

/// One task, with what is declared of it.
///
/// ```
/// use std::time::Duration;
/// use taskbay::{JobContext, TaskDefinition, TaskList};
///
/// let resize = TaskDefinition::new("resize", |_: serde_json::Value, _: JobContext| async { Ok(()) })
///     .timeout(Duration::from_secs(30))
///     .max_attempts(3);
/// let tasks = TaskList::new().with(resize);
/// # let _ = tasks;
/// ```
#[derive(Clone)]
pub struct TaskDefinition {
    spec: TaskSpec,
    code: Code,
}

/// Runs one job of a task, whose payload it reads itself.
type Code = Arc<dyn Fn(JobContext) -> Pin<Box<dyn Future<Output = TaskEnd> + Send>> + Send + Sync>;

impl TaskList {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task. It replaces one of the same name.
    #[must_use]
    pub fn task<P, F, R>(self, name: impl Into<String>, code: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        F: Fn(P, JobContext) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult> + Send + 'static,
    {
        self.with(TaskDefinition::new(name, code))
    }

    /// Adds a task of which more is declared than its name. It replaces one of the same name.
    #[must_use]
    pub fn with(mut self, task: TaskDefinition) -> Self {
        self.tasks.insert(task.spec.name.clone(), task);
        self
    }

    /// The names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tasks.keys().map(String::as_str)
    }

    /// Whether there is no task.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The tasks as a host runs them.
    pub(super) fn bind(self, surroundings: &Surroundings) -> Vec<BuiltInTask> {
        let bind = |task: TaskDefinition| BuiltInTask {
            spec: task.spec,
            code: Arc::new(BoundTask { code: task.code, surroundings: surroundings.clone() }),
        };
        self.tasks.into_values().map(bind).collect()
    }
}

impl TaskDefinition {
    /// A task with this name.
    pub fn new<P, F, R>(name: impl Into<String>, code: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        F: Fn(P, JobContext) -> R + Send + Sync + 'static,
        R: Future<Output = TaskResult> + Send + 'static,
    {
        let code = Arc::new(code);
        let run = move |context: JobContext| -> Pin<Box<dyn Future<Output = TaskEnd> + Send>> {
            let code = Arc::clone(&code);
            Box::pin(async move {
                match serde_json::from_str(&context.job().payload) {
                    Ok(payload) => code(payload, context).await.map_or_else(TaskEnd::from, |()| TaskEnd::Done),
                    Err(error) => TaskEnd::Failed(format!("the payload does not fit the task: {error}")),
                }
            })
        };
        let spec = TaskSpec {
            name: name.into(),
            description: String::new(),
            timeout: None,
            max_attempts: None,
            schedules: Vec::new(),
        };
        Self { spec, code: Arc::new(run) }
    }

    /// How long a job may run before it is asked to end, and then ended at its next await point.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.spec.timeout = Some(limit);
        self
    }

    /// At which attempt a job fails for good, even if it was added with more.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.spec.max_attempts = Some(attempts);
        self
    }

    /// When jobs of it are added by themselves: a line as in a crontab, without the task's name. May be called several times.
    #[must_use]
    pub fn schedule(mut self, line: impl Into<String>) -> Self {
        self.spec.schedules.push(line.into());
        self
    }
}

impl fmt::Debug for TaskDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

/// A task with all that its jobs need.
struct BoundTask {
    code: Code,
    surroundings: Surroundings,
}

impl TaskCode for BoundTask {
    fn run(&self, job: &JobInput<'_>, cancelled: CancellationToken) -> TaskRun {
        let context = self.surroundings.of(job, cancelled);
        let span = context.span().clone();
        let code = Arc::clone(&self.code);
        Box::pin(async move { code(context).await }.instrument(span))
    }
}
