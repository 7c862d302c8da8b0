//! What a plugin can tell and ask its host, without the binary interface.

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

/// The host: a real one behind the binary interface, or the one that [`testing`](crate::testing) plays.
pub(crate) trait HostLink: fmt::Debug + Send + Sync {
    /// Reports how a call ended.
    fn finish(&self, call: u64, ended: &Ended);
    /// Writes a line to the host's log.
    fn log(&self, call: u64, line: &Line<'_>);
    /// Asks for a job or an array of jobs to be added; the answer comes from any thread, also before this returns.
    fn add_job(&self, call: u64, spec: &str, answer: Answer);
    /// From when on `run_in` counts.
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
    /// The least important level that anybody listens to, by the numbers of `taskbay_abi`.
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

/// Makes a host the one that hears of what belongs to no call. A plugin has one host for all its life.
pub(crate) fn remember(link: &Arc<dyn HostLink>) {
    let _ = FIRST.set(Arc::clone(link));
}

/// The host that hears of what belongs to no call.
pub(crate) fn remembered() -> Option<&'static Arc<dyn HostLink>> {
    FIRST.get()
}
