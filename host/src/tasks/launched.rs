//! The end of a launch.

use std::{sync::Arc, time::Duration};

use crate::plugin::{Generation, LaunchError, PluginSettings};

/// How a launch ended.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) file: String,
    /// That of its [`Launch`](super::launch::Launch).
    pub(super) id: u64,
    pub(super) settings: PluginSettings,
    pub(super) took: Duration,
    /// The outer error is the message of a panic.
    pub(super) result: Result<Result<Arc<Generation>, LaunchError>, String>,
}

/// A build that has started and waits for other launches to end, since it has a task that another file may give up.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) file: String,
    pub(super) id: u64,
    pub(super) generation: Arc<Generation>,
    pub(super) settings: PluginSettings,
    pub(super) took: Duration,
}
