//! A folder becomes a task map.
//!
//! The watcher says that something changed; the listing of the folder and those below it is the truth; each plugin becomes
//! an artifact that was verified before anything of it runs, and each executable a task that runs from where it lies; the reloader launches what is new and publishes a whole new [`TaskMap`].
//! Nothing here knows that Postgres exists.

mod allow_list;
mod artifact;
mod conflicts;
mod executables;
mod folder;
#[cfg(fuzzing)]
pub mod fuzzed;
mod handle;
mod inspect;
mod known_file;
mod launches;
mod listing;
mod program;
mod relaunch;
mod reload;
mod roll_back;
mod scanning;
mod sections;
mod snapshot;
mod task_map;
mod trust;
mod watcher;

pub use folder::FolderError;
pub use handle::{AppliedSettings, AppliedTo, AppliesFrom, FolderHandle};
pub use inspect::{Conflict, FileReport, FolderReport, Verdict, inspect_file, inspect_folder};
pub use listing::Kind;
pub use reload::{Rejection, TasksFolder};
pub use sections::{plugins_in, unknown_sections};
pub use snapshot::{FileSnapshot, FolderSnapshot, RefusalSnapshot, ServingSnapshot, ServingState};
pub use task_map::{DeclaredSchedule, LiveTaskMap, Task, TaskMap};
