//! The task map, which is the host's own, and the folder whose files it is made of.

mod folder;
#[path = "../../../../host/src/tasks/task_map.rs"]
mod task_map;

pub use folder::Folder;
