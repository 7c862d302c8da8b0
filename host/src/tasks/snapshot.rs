//! What a watched folder has come to, as plain values that can be shown or sent.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A watched folder at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderSnapshot {
    pub folder: PathBuf,
    /// Device and number of what the path leads to now.
    pub identity: Option<(u64, u64)>,
    /// Why it cannot be used.
    pub trouble: Option<String>,
    /// By their paths below the folder, sorted.
    pub files: Vec<FileSnapshot>,
    /// What else lies in it, and why that is no task.
    #[serde(default)]
    pub skipped: Vec<SkippedSnapshot>,
    /// Replaced and removed builds that finish their jobs.
    #[serde(default)]
    pub draining: Vec<DrainingSnapshot>,
}

/// Something in the folder that is no task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedSnapshot {
    pub file: String,
    pub reason: String,
}

/// A build that is out of service and has jobs to finish, or its process to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainingSnapshot {
    pub plugin: String,
    /// As it is shown everywhere.
    pub build: String,
    pub running_jobs: usize,
}

/// A file of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSnapshot {
    pub file: String,
    pub plugin: String,
    pub serving: Option<ServingSnapshot>,
    /// Why what the file holds does not serve.
    pub refused: Option<RefusalSnapshot>,
    /// A build of it is being launched.
    pub starting: bool,
    /// A task of it that it gets no jobs of, and the file that gets them.
    #[serde(default)]
    pub shadowed: Option<(String, String)>,
    /// Why it is no task and nevertheless not refused.
    #[serde(default)]
    pub skipped: Option<String>,
    /// The build that the file holds and that was rolled back.
    #[serde(default)]
    pub rolled_back: Option<String>,
}

/// The build that a file's tasks run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServingSnapshot {
    /// As it is shown everywhere.
    pub build: String,
    pub state: ServingState,
    pub tasks: Vec<String>,
    pub running_jobs: usize,
    pub crashes: u32,
    #[serde(default)]
    pub trial: Option<TrialSnapshot>,
}

/// The time in which a new build is rolled back if it crashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialSnapshot {
    /// The build that would serve again.
    pub before: String,
    pub ends_in: Duration,
}

/// All tasks that jobs run on at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMapSnapshot {
    /// Counts the maps before it.
    pub epoch: u64,
    /// Sorted by their names.
    pub tasks: Vec<TaskSnapshot>,
}

/// A task and the build that runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSnapshot {
    pub task: String,
    pub plugin: String,
    /// As it is shown everywhere.
    pub build: String,
}

/// Whether it takes jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServingState {
    Serving,
    /// Its process crashed.
    Restarting,
    /// It is an executable, and its file is gone or being looked at.
    WaitingForFile,
    Quarantined {
        reason: String,
    },
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalSnapshot {
    pub reason: String,
    /// When it is tried again, if that is to be.
    pub retry_in: Option<Duration>,
}

impl FolderSnapshot {
    /// Whether it is of the folder at this path, by whatever name it is watched.
    pub fn is_of(&self, path: &Path) -> bool {
        match (self.identity, identity(path)) {
            (Some(one), Some(other)) => one == other,
            // Neither is there.
            (None, None) => self.folder == path,
            _ => false,
        }
    }
}

/// Device and number of what a path leads to.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
