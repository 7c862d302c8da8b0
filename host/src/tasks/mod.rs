//! A folder becomes a task map.
//!
//! The watcher reports that something may have changed. The scanner lists the folder and those below it, verifies new files
//! before anything of them runs, and sends its findings. The reloader holds the state of each file, launches new builds, and
//! publishes a whole new [`TaskMap`]. Nothing here knows that Postgres exists.

mod allow_list;
mod artifact;
mod conflicts;
mod file_reader;
mod file_state;
mod findings;
mod folder;
mod folder_error;
#[cfg(fuzzing)]
pub mod fuzzed;
mod handle;
mod inspect;
mod known_file;
mod launch;
mod launched;
mod launches;
mod listing;
mod notices;
mod permissions;
mod program;
mod reload;
mod requests;
mod roll_back;
mod scanner;
mod sections;
mod snapshot;
mod task_map;
mod tasks_folder;
mod trial;
mod trust;
mod watcher;

pub use folder_error::FolderError;
pub use handle::{AppliedSettings, AppliedTo, AppliesFrom, FolderHandle};
pub use inspect::{Conflict, FileReport, FolderReport, Verdict, inspect_file, inspect_folder};
pub use listing::Kind;
pub use reload::Rejection;
pub use sections::{plugins_in, unknown_sections};
pub use snapshot::{
    DrainingSnapshot, FileSnapshot, FolderSnapshot, RefusalSnapshot, ServingSnapshot, ServingState, SkippedSnapshot,
    TaskMapSnapshot, TaskSnapshot, TrialSnapshot,
};
pub use task_map::{DeclaredSchedule, LiveTaskMap, Task, TaskMap};
pub use tasks_folder::TasksFolder;
