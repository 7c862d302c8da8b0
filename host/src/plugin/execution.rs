//! Runs a job on its plugin: waits for its end, and forces it after the time limit or a cancellation.

use std::{future::pending, pin::pin, slice, sync::Arc, time::Duration};

use taskbay_abi::{
    CANCEL_ABORT, CANCEL_ASK, STATUS_CANCELLED, STATUS_DISCARD, STATUS_OK, STATUS_PANIC, STATUS_PARTLY_FAILED,
};
use tokio::time::{sleep, timeout};
use tracing::error;

use super::{
    Cancel, FailedItems, FailureKind, Outcome, StopSignal,
    built_in::BuiltIn,
    calls::{Call, CallEnd},
    connection::Connection,
    in_process::InProcess,
};

/// The time limit of an abort. A task that does not reach an await point within it is considered blocked.
const ABORT_GRACE: Duration = Duration::from_millis(250);

/// A running job.
pub(super) struct Execution<'a> {
    pub(super) call: Call,
    pub(super) line: Line<'a>,
    pub(super) job: i64,
    pub(super) task: &'a str,
    /// The time limit.
    pub(super) limit: Option<Duration>,
    /// The time to end after being told to.
    pub(super) grace: Duration,
    pub(super) cancel: &'a Cancel,
    pub(super) killed: &'a StopSignal,
}

/// The connection to its plugin.
pub(super) enum Line<'a> {
    Child(Arc<Connection>),
    InProcess(&'a InProcess),
    BuiltIn(&'a BuiltIn),
}

/// The reason for stopping a job.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stop {
    Timeout(Duration),
    Cancelled,
    Killed,
}

impl Execution<'_> {
    /// Asks the job to end, then aborts it, then gives up on the plugin.
    pub(super) async fn outcome(mut self) -> Outcome {
        let mut expiry = pin!(expiry(self.limit));
        let signals = [self.killed, &self.cancel.force, &self.cancel.ask];
        let mut heeded = signals.as_slice();
        let stop = loop {
            tokio::select! {
                // The end is checked first: an ended job needs no timer.
                biased;
                end = self.call.end_unless(heeded) => match end {
                    Some(end) => return outcome(end, None),
                    None if self.killed.is_cancelled() => break Stop::Killed,
                    None if self.cancel.force.is_cancelled() => break Stop::Cancelled,
                    None => {
                        heeded = &signals[..2];
                        self.line.cancel(self.call.id, CANCEL_ASK);
                    }
                },
                limit = &mut expiry => break Stop::Timeout(limit),
            }
        };
        if let Stop::Killed = stop {
            return stop.failure("");
        }
        for (mode, patience) in [(CANCEL_ASK, self.grace), (CANCEL_ABORT, ABORT_GRACE)] {
            self.line.cancel(self.call.id, mode);
            match timeout(patience, self.call.end_unless(slice::from_ref(&self.killed))).await {
                Ok(Some(end)) => return outcome(end, Some(stop)),
                Ok(None) => return Stop::Killed.failure(""),
                Err(_) => {}
            }
        }
        self.give_up(stop)
    }

    fn give_up(self, stop: Stop) -> Outcome {
        let Self { job, task, line, .. } = self;
        match line {
            Line::Child(connection) => {
                connection
                    .terminate(format!("was stopped because job {job} (task {task}) did not end when it was told to"));
                stop.failure(", nor when it was told to stop, so that its plugin was restarted")
            }
            Line::BuiltIn(_) => {
                error!(
                    job,
                    task,
                    "job {job} (task {task}) does not end when it is told to; it keeps a thread of this program busy"
                );
                stop.failure(", nor when it was told to stop; it still runs, because it never comes to an await point")
            }
            Line::InProcess(_) => {
                error!(
                    job,
                    task,
                    "job {job} (task {task}) does not end when it is told to; it keeps a thread of its plugin busy, which \
                     cannot be stopped in this process: run the plugin isolated"
                );
                stop.failure(
                    ", nor when it was told to stop; it still runs, because it cannot be stopped in the host's process",
                )
            }
        }
    }
}

impl Line<'_> {
    fn cancel(&self, call: u64, mode: u32) {
        match self {
            Line::Child(connection) => connection.cancel(call, mode),
            Line::InProcess(plugin) => plugin.cancel(call, mode),
            Line::BuiltIn(tasks) if mode == CANCEL_ABORT => tasks.abort(call),
            Line::BuiltIn(tasks) => tasks.ask(call),
        }
    }
}

impl Stop {
    fn failure(self, more: &str) -> Outcome {
        let (kind, message) = match self {
            Stop::Timeout(limit) => {
                (FailureKind::Timeout, format!("did not finish within {}{more}", humantime::format_duration(limit)))
            }
            Stop::Cancelled if more.is_empty() => (FailureKind::Cancelled, "was cancelled".to_owned()),
            Stop::Cancelled => (FailureKind::Cancelled, format!("was cancelled, but did not end{more}")),
            Stop::Killed => {
                (FailureKind::Cancelled, "was cancelled because the host is stopping it at once".to_owned())
            }
        };
        Outcome::Failed { kind, message }
    }
}

/// The outcome for each kind of end.
pub(super) fn outcome(end: CallEnd, stop: Option<Stop>) -> Outcome {
    let (status, message, detail) = match end {
        CallEnd::Reported { status, message, detail } => (status, message, detail),
        CallEnd::Crashed(message) => return Outcome::Failed { kind: FailureKind::Crash, message },
    };
    let or = |default: &str| message.unwrap_or_else(|| default.to_owned());
    match (status, stop) {
        (STATUS_OK, _) => Outcome::Done,
        (STATUS_DISCARD, _) => Outcome::Failed { kind: FailureKind::Discard, message: or("it was discarded") },
        (STATUS_PARTLY_FAILED, _) => match detail.as_deref().and_then(FailedItems::from_detail) {
            Some(items) => Outcome::PartlyFailed { items, message: or("some items failed") },
            None => {
                let message = or("some items failed");
                let message =
                    format!("{message} (which ones, its plugin did not say as it should: all are tried again)");
                Outcome::Failed { kind: FailureKind::Error, message }
            }
        },
        (STATUS_PANIC, _) => Outcome::Failed { kind: FailureKind::Panic, message: or("it panicked") },
        // The cause is the time limit, not the reaction of the task.
        (_, Some(stop @ Stop::Timeout(_))) => stop.failure(""),
        (STATUS_CANCELLED, Some(stop)) => stop.failure(""),
        (STATUS_CANCELLED, None) => {
            Outcome::Failed { kind: FailureKind::Cancelled, message: or("its plugin cancelled it") }
        }
        (_, Some(_)) => Outcome::Failed { kind: FailureKind::Cancelled, message: or("was cancelled") },
        (_, None) => Outcome::Failed { kind: FailureKind::Error, message: or("it failed without a message") },
    }
}

async fn expiry(limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            sleep(limit).await;
            limit
        }
        None => pending().await,
    }
}
