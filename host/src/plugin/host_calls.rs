//! What plugins may ask of the host: a line in the log, a job in the queue.

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc};

use crate::events::Events;

/// What the host does for its plugins.
#[derive(Debug, Clone)]
pub struct HostServices {
    /// Stores the jobs that plugins add.
    pub add_job: Arc<dyn AddJob>,
    /// Hears of crashes, restarts and the output of plugins.
    pub events: Events,
    /// The program that runs isolated plugins when called as `taskbay plugin-child`: this one, unless a library user says
    /// otherwise.
    pub program: PathBuf,
}

/// Stores jobs on behalf of plugins.
pub trait AddJob: std::fmt::Debug + Send + Sync + 'static {
    /// Adds the job that `spec` describes (the JSON object of [`taskbay_abi::ADD_JOB_SPEC`]) and returns its id, or says
    /// why it could not.
    fn add_job(&self, spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>>;
}
