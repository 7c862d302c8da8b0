//! The host's services for plugins: logging, and adding jobs.

use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, OnceLock},
};

use taskbay_abi::{LEVEL_DEBUG, LEVEL_ERROR, LEVEL_INFO, LEVEL_TRACE, LEVEL_WARN};
use tracing::{debug, error, info, level_filters::LevelFilter, trace, warn};

use super::{TaskSpec, host_table::LogLine};
use crate::events::{Events, PluginBuild};

/// The host's services for its plugins.
#[derive(Debug, Clone)]
pub struct HostServices {
    /// Stores the jobs added by plugins.
    pub add_job: Arc<dyn AddJob>,
    /// Receives crashes, restarts and the output of plugins.
    pub events: Events,
    /// The program that runs isolated plugins, called as `taskbay plugin-child`: this one, unless a library user names
    /// another one.
    pub program: PathBuf,
}

/// Stores jobs on behalf of plugins.
pub trait AddJob: std::fmt::Debug + Send + Sync + 'static {
    /// Adds the job described by `spec` (the JSON object of [`taskbay_abi::ADD_JOB_SPEC`]), and returns its id or the reason
    /// for the failure.
    fn add_job(&self, spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>>;

    /// Adds the jobs of an array of such objects, all or none, and returns their ids in the same order, or the reason for the
    /// failure. Fails unless implemented.
    fn add_jobs(&self, specs: String) -> Pin<Box<dyn Future<Output = Result<Vec<i64>, String>> + Send + '_>> {
        drop(specs);
        Box::pin(std::future::ready(Err("jobs can only be added one by one here".to_owned())))
    }
}

/// Adds a job or an array of jobs for a plugin, and returns the `detail` of the answer.
pub(super) async fn add(jobs: &dyn AddJob, request: String) -> Result<String, String> {
    if request.trim_start().starts_with('[') {
        let ids = jobs.add_jobs(request).await?;
        Ok(serde_json::Value::from(ids).to_string())
    } else {
        jobs.add_job(request).await.map(|id| id.to_string())
    }
}

/// Writes the log lines of one build, with the target `plugin`.
#[derive(Debug)]
pub(super) struct PluginLog {
    build: PluginBuild,
    /// Set when the build is loaded.
    tasks: OnceLock<Vec<String>>,
}

impl PluginLog {
    pub(super) fn new(build: PluginBuild) -> Self {
        Self { build, tasks: OnceLock::new() }
    }

    /// Sets the names that mark the lines.
    pub(super) fn name_tasks(&self, tasks: &[TaskSpec]) {
        let _ = self.tasks.set(tasks.iter().map(|task| task.name.clone()).collect());
    }

    /// Writes a line, with its job and the task's index if it belongs to a job.
    pub(super) fn write(&self, job: Option<(i64, u32)>, line: LogLine<'_>) {
        let PluginBuild { plugin, build } = &self.build;
        let task = job.and_then(|(_, index)| self.tasks.get()?.get(index as usize)).map(String::as_str);
        let job = job.map(|(id, _)| id);
        let LogLine { level, target, message, fields } = line;
        macro_rules! write_at {
            ($level:ident) => {
                $level!(target: "plugin", job, task, plugin, %build, module = target, fields, "{message}")
            };
        }
        match level {
            ..=LEVEL_ERROR => write_at!(error),
            LEVEL_WARN => write_at!(warn),
            LEVEL_INFO => write_at!(info),
            LEVEL_DEBUG => write_at!(debug),
            LEVEL_TRACE.. => write_at!(trace),
        }
    }
}

/// The least important level that is logged, for [`taskbay_abi::Host::max_level`].
pub(super) fn max_level() -> u32 {
    match LevelFilter::current() {
        LevelFilter::OFF => 0,
        LevelFilter::ERROR => LEVEL_ERROR,
        LevelFilter::WARN => LEVEL_WARN,
        LevelFilter::INFO => LEVEL_INFO,
        LevelFilter::DEBUG => LEVEL_DEBUG,
        _ => LEVEL_TRACE,
    }
}
