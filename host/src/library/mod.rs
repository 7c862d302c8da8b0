//! Taskbay inside another program: tasks that are compiled into it, run beside or instead of a folder of plugins.
//!
//! | graphile-worker | here |
//! |---|---|
//! | `run(options, taskList)` | [`run`] with [`Options::tasks`], [`Options::folder`], or both |
//! | `runOnce` | [`run_once`] |
//! | `runTaskList`, `runTaskListOnce` | [`run_task_list`], [`run_task_list_once`] |
//! | `getTasks` | [`get_tasks`] |
//! | `quickAddJob` | [`Database::add_job`](crate::queue::Database::add_job), or [`queue::add_job`](crate::queue::add_job) inside a transaction |
//! | helpers | [`JobContext`] |
//! | `Logger` | any [`tracing`] subscriber: the library only writes lines, and each job runs in a span `job` |

mod child_program;
mod folder_tasks;
mod job_context;
mod options;
mod pool_handle;
mod resolved;
mod runner;
mod signals;
mod task_error;
mod task_list;

pub use child_program::plugin_child;
pub use folder_tasks::{CallError, FolderTasks, get_tasks};
pub use job_context::{JobContext, PooledClient, RunningJob};
pub use options::Options;
pub use pool_handle::{PoolHandle, run_task_list, run_task_list_once};
pub use resolved::{OptionsError, RunError};
pub use runner::{AlreadyStopped, Runner, run, run_once};
pub use task_error::{BoxError, TaskError, TaskResult};
pub use task_list::{TaskDefinition, TaskList};
