//! A run of an executable file: writes its input, reads its output, waits for or forces its end, and reports the result.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, sync::Arc, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    process::Child,
    time::{Instant, sleep, sleep_until},
};

use super::{Cancel, FailureKind, JobInput, Outcome, StopSignal, output::Output, process::signal_name};
use crate::events::{Event, Events, PluginBuild};

/// The time to read remaining output after the process has ended: a background process may keep the pipes open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// The interval of checks whether the whole process group has ended; only a parent is notified.
const GROUP_LOOK: Duration = Duration::from_millis(10);
/// The length of the end of standard error that is included in a job's error.
const TAIL: usize = 4 << 10;

/// The external reasons to end a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    /// The time limit.
    pub(super) limit: Duration,
    /// The time to end after being told to.
    pub(super) grace: Duration,
    pub(super) cancel: &'a Cancel,
    pub(super) killed: &'a StopSignal,
}

/// The reason for stopping a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Timeout,
    Cancelled,
    Killed,
}

/// The process group of the run. Dropping it kills all its processes.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Run<'_> {
    /// Runs the job in a newly started process.
    pub(super) async fn outcome(
        self,
        mut child: Child,
        job: &JobInput<'_>,
        build: &PluginBuild,
        events: &Events,
    ) -> Outcome {
        let mut group = Group::of(&child);
        let input = child.stdin.take();
        let mut output = Output::follow(&mut child, events.parts(), announce(job, build, events));
        let feeding = async {
            if let Some(input) = input {
                feed(input, job.payload).await;
            }
            std::future::pending().await
        };
        let (status, stop) = tokio::select! {
            ended = self.wait(&mut child, &group) => ended,
            // Input that the process has not read by its end is discarded.
            ended = feeding => ended,
        };
        output.drained(LAST_OUTPUT).await;
        group.release();
        self.verdict(status, stop, &output.last_errors())
    }

    /// Waits for the end; tells the group to end at the time limit, and kills it if it does not.
    async fn wait(&self, child: &mut Child, group: &Group) -> (std::io::Result<ExitStatus>, Option<Stop>) {
        let deadline = Instant::now() + self.limit;
        let stop = tokio::select! {
            biased;
            status = child.wait() => return (status, None),
            () = self.killed.cancelled() => Stop::Killed,
            () = self.cancel.force.cancelled() => Stop::Cancelled,
            () = self.cancel.ask.cancelled() => Stop::Cancelled,
            () = sleep_until(deadline) => Stop::Timeout,
        };
        let mut status = None;
        if stop != Stop::Killed {
            group.signal(Signal::TERM);
            let gone = async {
                status = Some(child.wait().await);
                while group.is_there() {
                    sleep(GROUP_LOOK).await;
                }
            };
            tokio::select! {
                biased;
                () = gone => {}
                () = self.killed.cancelled() => {}
                () = sleep(self.grace) => {}
            }
        }
        group.signal(Signal::KILL);
        match status {
            Some(status) => (status, Some(stop)),
            None => (child.wait().await, Some(stop)),
        }
    }

    fn verdict(&self, status: std::io::Result<ExitStatus>, stop: Option<Stop>, said: &[String]) -> Outcome {
        // Success counts, even after the process was told to end.
        if status.as_ref().is_ok_and(ExitStatus::success) {
            return Outcome::Done;
        }
        let killed = status.as_ref().is_ok_and(|status| status.signal() == Some(Signal::KILL.as_raw()));
        let (kind, how) = match status {
            Ok(_) if killed && stop.is_some() => {
                let grace = humantime::format_duration(self.grace);
                (FailureKind::Crash, format!("did not within {grace} and was killed"))
            }
            Ok(status) => match status.code() {
                Some(code) => (FailureKind::Error, format!("exited with code {code}")),
                None => (FailureKind::Crash, format!("was killed by {}", signal_name(status))),
            },
            Err(error) => (FailureKind::Crash, format!("was lost: its end could not be heard of ({error})")),
        };
        let (kind, message) = match stop {
            None => (kind, how),
            Some(Stop::Timeout) => {
                let limit = humantime::format_duration(self.limit);
                (FailureKind::Timeout, format!("did not finish within {limit}; told to end, it {how}"))
            }
            Some(Stop::Cancelled) => (FailureKind::Cancelled, format!("was cancelled; told to end, it {how}")),
            Some(Stop::Killed) => {
                (FailureKind::Cancelled, "was cancelled because the host is stopping it at once".to_owned())
            }
        };
        let tail = tail(said);
        Outcome::Failed { kind, message: if tail.is_empty() { message } else { format!("{message}:\n{tail}") } }
    }
}

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // An error means that no process of the group is left.
            let _ = kill_process_group(group, signal);
        }
    }

    fn is_there(&self) -> bool {
        self.0.is_some_and(|group| test_kill_process_group(group).is_ok())
    }

    /// Lets remaining processes outlive the job, as intended by the executable.
    fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Writes the payload as stored. A process may end or close its input without reading all of it.
async fn feed(mut input: impl AsyncWrite + Unpin, payload: &str) {
    for part in [r#"{"payload":"#, payload, "}"] {
        if input.write_all(part.as_bytes()).await.is_err() {
            return;
        }
    }
    let _ = input.shutdown().await;
}

/// Reports each line with its job.
fn announce(
    job: &JobInput<'_>,
    build: &PluginBuild,
    events: &Events,
) -> impl Fn(bool, String) + Clone + Send + Sync + use<> {
    let (id, task, build, events): (_, Arc<str>, _, _) = (job.id, job.task.into(), build.clone(), events.clone());
    move |error, line| {
        let (task, build) = (Arc::clone(&task), build.clone());
        events.emit(Event::JobOutput { id, task, build, error, line });
    }
}

/// The end of the process's standard error.
fn tail(said: &[String]) -> String {
    let text = said.join("\n").replace('\0', "\\0");
    let Some(excess) = text.len().checked_sub(TAIL).filter(|excess| *excess > 0) else { return text };
    let from = (excess..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("…{}", &text[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_bounded_and_readable() {
        assert_eq!(tail(&["one".to_owned(), "t\0wo".to_owned()]), "one\nt\\0wo");
        let long = tail(&["é".repeat(TAIL)]);
        assert!(long.starts_with("…é") && long.ends_with('é'));
        assert!(long.len() <= TAIL + "…".len());
    }
}
