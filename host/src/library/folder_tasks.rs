//! The tasks of a folder, to be called without a database: for tests, and for programs with a queue of their own.

use std::{future::Future, path::Path, pin::Pin, sync::Arc, time::Duration};

use serde::Serialize;
use thiserror::Error;

use super::{OptionsError, RunError, child_program::this_program};
use crate::{
    config::{Layer, PluginLookup, Purpose},
    events::Events,
    host::HostError,
    plugin::{AddJob, Cancel, FailureKind, HostServices, JobInput, Outcome},
    tasks::{LiveTaskMap, TasksFolder},
};

/// How long plugins may take to end.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Loads each plugin of a folder once: graphile-worker's `getTasks`. Later changes of its files are not noticed. The plugins
/// run in processes of this program, which has to be prepared for that: see [`plugin_child`](crate::plugin_child).
///
/// A folder with a broken file is an error, which names all of them.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let tasks = taskbay::get_tasks("tasks").await?;
/// for name in tasks.names() {
///     println!("{name}");
/// }
/// tasks.call("send_email", &serde_json::json!({"to": "ada@example.com"})).await?;
/// tasks.close().await;
/// # Ok(())
/// # }
/// ```
pub async fn get_tasks(folder: impl AsRef<Path>) -> Result<FolderTasks, RunError> {
    let program = this_program().ok_or(OptionsError::NotPrepared)?;
    FolderTasks::load(folder.as_ref(), PluginLookup::default(), &program).await
}

/// The tasks of a folder as they were loaded. Dropping it ends its plugins.
#[derive(Debug)]
pub struct FolderTasks {
    map: Arc<LiveTaskMap>,
    folder: TasksFolder,
}

/// Why a call of a task failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    #[error("there is no task {task}; there are {known}")]
    UnknownTask { task: String, known: String },
    #[error("the payload cannot be written as JSON: {0}")]
    Payload(String),
    #[error("{message}")]
    Failed { kind: FailureKind, message: String },
    #[error("its plugin takes no calls at this moment")]
    NotTaken,
}

impl FolderTasks {
    /// As [`get_tasks`], with settings for the plugins and another program to run them in.
    pub async fn load(folder: &Path, plugins: PluginLookup, program: &Path) -> Result<Self, RunError> {
        let layer = Layer { tasks_directory: Some(folder.to_owned()), ..Layer::default() };
        let services =
            HostServices { add_job: Arc::new(NoDatabase), events: Events::default(), program: program.to_owned() };
        let map = Arc::new(LiveTaskMap::default());
        let folder = TasksFolder::new(layer.folder(Purpose::Production), plugins, services, Arc::clone(&map));
        let (folder, rejections) = folder.load_all().await.map_err(HostError::from)?;
        if !rejections.is_empty() {
            folder.stop(END_WITHIN).await;
            return Err(HostError::BrokenFiles(rejections).into());
        }
        Ok(Self { map, folder })
    }

    /// The names of all tasks, sorted.
    pub fn names(&self) -> Vec<String> {
        self.map.load().identifiers().map(str::to_owned).collect()
    }

    /// Calls a task as a job with this payload would, on its first and only attempt.
    pub async fn call<P: Serialize + ?Sized>(&self, task: &str, payload: &P) -> Result<(), CallError> {
        let payload = serde_json::to_string(payload).map_err(|error| CallError::Payload(error.to_string()))?;
        let Some(found) = self.map.load().get(task).cloned() else {
            return Err(CallError::UnknownTask { task: task.to_owned(), known: self.names().join(", ") });
        };
        let job = JobInput {
            id: 0,
            task,
            attempt: 1,
            max_attempts: 1,
            priority: 0,
            revision: 0,
            run_at_us: 0,
            created_at_us: 0,
            updated_at_us: 0,
            payload: &payload,
            queue: None,
            key: None,
            last_error: None,
            flags: None,
        };
        match found.generation.run(found.index, &job, &Cancel::default()).await {
            Outcome::Done => Ok(()),
            Outcome::Failed { kind, message } => Err(CallError::Failed { kind, message }),
            Outcome::PartlyFailed { message, .. } => Err(CallError::Failed { kind: FailureKind::Error, message }),
            Outcome::NotStarted => Err(CallError::NotTaken),
        }
    }

    /// Lets calls finish, then ends the plugins.
    pub async fn close(self) {
        self.folder.stop(END_WITHIN).await;
    }
}

/// What tasks meet that add jobs.
#[derive(Debug)]
struct NoDatabase;

impl AddJob for NoDatabase {
    fn add_job(&self, _spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>> {
        Box::pin(async { Err("there is no database: the task was called by itself".to_owned()) })
    }
}
