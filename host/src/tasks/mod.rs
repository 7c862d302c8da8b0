//! A folder becomes a task map.
//!
//! The watcher says that something changed; the listing of the folder is the truth; each file becomes an artifact that
//! was verified before anything of it runs; the reloader launches what is new and publishes a whole new [`TaskMap`].
//! Nothing here knows that Postgres exists.

mod task_map;

pub use task_map::{LiveTaskMap, Task, TaskMap};
