//! A plugin's messages and requests to its host, independent of the binary interface.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use crate::{TaskError, new_job::Answer};

/// How a call ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Done,
    Failed(TaskError),
    Panicked(String),
    Cancelled(&'static str),
}

impl From<Result<(), TaskError>> for Ended {
    fn from(result: Result<(), TaskError>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Done)
    }
}

/// The host: the real one behind the binary interface, or the one of [`testing`](crate::testing).
pub(crate) trait HostLink: fmt::Debug + Send + Sync {
    /// Reports how a call ended.
    fn finish(&self, call: u64, ended: &Ended);
    /// Writes a line to the host's log.
    fn log(&self, call: u64, line: &Line<'_>);
    /// Requests a job or an array of jobs to be added. The answer comes on any thread, possibly before this returns.
    fn add_job(&self, call: u64, spec: &str, answer: Answer);
    /// The current time, from which `run_in` counts.
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
    /// The least important level that is logged, as a number of `taskbay_abi`.
    fn max_level(&self) -> u32;
}

/// One line for the host's log.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) level: u32,
    pub(crate) target: &'a str,
    pub(crate) message: &'a str,
    /// A JSON object.
    pub(crate) fields: Option<&'a str>,
}

static FIRST: OnceLock<Arc<dyn HostLink>> = OnceLock::new();

/// Sets the host that receives messages outside of calls. A plugin has the same host for all its life.
pub(crate) fn remember(link: &Arc<dyn HostLink>) {
    let _ = FIRST.set(Arc::clone(link));
}

/// The host that receives messages outside of calls.
pub(crate) fn remembered() -> Option<&'static Arc<dyn HostLink>> {
    FIRST.get()
}
