//! What events are about.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    build_id::BuildId,
    queue::{CronJob, KnownCrontab},
};

/// A plugin and its build, as every line about them names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginBuild {
    pub plugin: String,
    pub build: BuildId,
}

/// A job on the build that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun {
    /// The pool that runs it, as in `locked_by`.
    pub worker: Arc<str>,
    pub id: i64,
    pub task: Arc<str>,
    pub attempt: i16,
    pub max_attempts: i16,
    pub plugin: Arc<str>,
    pub build: BuildId,
}

/// A schedule that is made up for, and what the database knew of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfilledItem {
    pub job: CronJob,
    pub known: KnownCrontab,
}

/// A tasks folder that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderTrouble {
    pub folder: PathBuf,
    pub reason: String,
    /// How many of its files keep serving.
    pub serving: usize,
}

/// A file that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRejection {
    pub file: String,
    pub reason: String,
    /// The build of that plugin which goes on.
    pub serving: Option<BuildId>,
    /// Set if the reason may pass by itself.
    pub retry_in: Option<Duration>,
}

/// The job of a schedule at one minute, which the database does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedTick {
    pub identifier: String,
    pub task: String,
    pub timestamp: Timestamp,
    pub reason: String,
}

/// Another launch of a build that did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRetry {
    pub file: String,
    pub reason: String,
    pub retry_in: Duration,
    /// How long this has been going on.
    pub since: Duration,
    /// Set every few minutes, for those who have missed the first refusal.
    pub reminder: bool,
}

/// A section of the settings that is for no plugin that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownSection {
    pub plugin: String,
    /// The section and, where that is known, the file and the line.
    pub place: String,
    /// The plugin that was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for UnknownSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, place, nearest } = self;
        write!(f, "there is no plugin {plugin} in the tasks folder, so its settings ({place}) have no effect")?;
        nearest.as_ref().map_or(Ok(()), |near| write!(f, "; did you mean {near}?"))
    }
}
