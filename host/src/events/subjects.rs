//! What events are about.

use std::sync::Arc;

use crate::{
    plugin::BuildId,
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
