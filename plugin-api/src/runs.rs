//! Runs a task from its first wait to its end or abort.

use crate::{
    TaskError,
    current::{Guarded, guard},
    host_link::Ended,
    job::{Call, Stop},
};

pub(crate) async fn run_async(call: &Call, task: Guarded) -> Ended {
    tokio::select! {
        biased;
        stop = aborted(call) => stop,
        ended = task => ended,
    }
}

/// Runs a plain function. It cannot be stopped from outside: an abort only prevents a start.
pub(crate) async fn run_blocking(call: &Call, code: Box<dyn FnOnce() -> Result<(), TaskError> + Send>) -> Ended {
    let current = call.current(true);
    let mut running = tokio::task::spawn_blocking(move || guard(current, || code().into()));
    let (result, stop) = tokio::select! {
        biased;
        result = &mut running => (result, Ended::Cancelled("the plugin was shut down")),
        stop = aborted(call) => {
            running.abort();
            (running.await, stop)
        }
    };
    result.unwrap_or(stop)
}

async fn aborted(call: &Call) -> Ended {
    match call.stopped(Stop::Aborted("")).await {
        Stop::Aborted(reason) => Ended::Cancelled(reason),
        Stop::No | Stop::Asked => Ended::Cancelled("cancelled"),
    }
}
