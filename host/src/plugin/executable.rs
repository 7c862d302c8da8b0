//! The runner of executable files: each job is a process of its own, by the protocol of graphile-worker.
//!
//! The file runs from its own path, since scripts find what belongs to them by where they are. So a run begins only while
//! the file is the one that was verified; a file that is being replaced takes no jobs until it was verified again.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    pin::pin,
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    Accepted, Availability, BuildId, FileKey, JobInput, ManifestInfo, Outcome, TaskSpec,
    bounds::Bounds,
    executable_run::Run,
    lease::{BeingWritten, Lease},
    libc_calls, process,
};
use crate::{
    blocking::off_the_runtime,
    events::{Events, PluginBuild},
};

/// How long a job may run unless the settings say otherwise: graphile-worker's limit.
pub(super) const TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);

/// How long a file may be open for writing somewhere before its job goes back. Most writers are done in a moment.
const BUSY_FOR: Duration = Duration::from_secs(1);
const FIRST_BUSY_WAIT: Duration = Duration::from_millis(5);

/// By then, an interpreter has read its script. Shells go on reading while they run, but nobody is kept from writing for so
/// long.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// An executable file that was verified.
#[derive(Debug, Clone)]
pub struct ExecutableFile {
    /// The name of its task, by which its settings are found, too.
    pub identifier: String,
    /// Where it is; if that is a link, what it leads to is run.
    pub path: PathBuf,
    /// Identifies its contents.
    pub build: BuildId,
    /// The state that was verified.
    pub key: FileKey,
}

/// A file that runs jobs.
#[derive(Debug)]
pub(super) struct Executable {
    build: PluginBuild,
    path: PathBuf,
    verified: Mutex<FileKey>,
    bounds: Bounds,
    availability: watch::Sender<Availability>,
    events: Events,
}

impl Executable {
    pub(super) fn new(
        file: ExecutableFile,
        bounds: Bounds,
        events: &Events,
        availability: watch::Sender<Availability>,
    ) -> Self {
        Self {
            build: PluginBuild { plugin: file.identifier, build: file.build },
            path: file.path,
            verified: Mutex::new(file.key),
            bounds,
            availability,
            events: events.clone(),
        }
    }

    /// Runs one job to its end.
    pub(super) async fn run(&self, job: &JobInput<'_>, run: Run<'_>, accepted: Accepted<'_>) -> Outcome {
        let (child, lease) = match self.start(job).await {
            Ok(Some(started)) => started,
            Ok(None) => return Outcome::NotStarted,
            Err(message) => return Outcome::Failed { kind: super::FailureKind::Error, message },
        };
        accepted();
        let before = self.verified();
        let mut outcome = pin!(run.outcome(child, job, &self.build, &self.events));
        let outcome = match timeout(READ_WITHIN, &mut outcome).await {
            Ok(outcome) => outcome,
            Err(_) => {
                drop(lease);
                outcome.await
            }
        };
        self.blame_memory_limit(self.blame_writer(outcome, &before))
    }

    /// The file was looked at again and holds the same as before, in this state.
    pub(super) fn verify_again(&self, key: FileKey) {
        *self.verified.lock().unwrap_or_else(PoisonError::into_inner) = key;
        self.change_availability(&Availability::Restarting, Availability::Serving);
    }

    /// Starts the process, unless the file is not the verified one (any more). While the lease is held, nobody writes to it.
    async fn start(&self, job: &JobInput<'_>) -> Result<Option<(Child, Lease)>, String> {
        let (began, mut wait) = (Instant::now(), FIRST_BUSY_WAIT);
        while let Some((path, lease)) = self.verified_file().await {
            if let Ok(lease) = lease {
                match process::spawn(command(&path, job, &self.bounds)).await {
                    Ok(child) => return Ok(Some((child, lease))),
                    Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
                    Err(error) => return Err(format!("could not be started: {}", explain(&path, &error))),
                }
            }
            // Somebody has it open for writing; a process that is just being started may have inherited that.
            if began.elapsed() >= BUSY_FOR {
                break;
            }
            sleep(wait).await;
            wait *= 2;
        }
        // No job is claimed for it until the folder was looked at.
        self.change_availability(&Availability::Serving, Availability::Restarting);
        Ok(None)
    }

    /// The path to run, if the verified contents are there. A link is followed here, not by whoever starts it, so that what
    /// was looked at is what runs.
    async fn verified_file(&self) -> Option<(PathBuf, Result<Lease, BeingWritten>)> {
        let (path, verified) = (self.path.clone(), self.verified());
        // It may be on a file server.
        off_the_runtime(move || {
            let path = if fs::symlink_metadata(&path).ok()?.is_symlink() { path.canonicalize().ok()? } else { path };
            let lease = Lease::take(&path).ok()?;
            let metadata = lease.as_ref().map_or_else(|_| fs::metadata(&path), |lease| lease.file().metadata()).ok()?;
            FileKey::of(&metadata).has_contents_of(&verified).then_some((path, lease))
        })
        .await
    }

    fn verified(&self) -> FileKey {
        *self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_availability(&self, from: &Availability, to: Availability) {
        self.availability.send_if_modified(|now| {
            let changes = now == from;
            if changes {
                *now = to;
            }
            changes
        });
    }

    /// Shells read a script while they run it, so whoever writes into it changes what runs.
    fn blame_writer(&self, mut outcome: Outcome, before: &FileKey) -> Outcome {
        if let Outcome::Failed { message, .. } = &mut outcome
            && let Ok(metadata) = fs::metadata(&self.path)
            && FileKey::of(&metadata).is_file_of(before)
            && !FileKey::of(&metadata).has_contents_of(before)
        {
            message.push_str("\n(its file was written to while it ran: replace it as a whole, with mv or install)");
        }
        outcome
    }

    /// Names the memory limit where a failure looks like a lack of memory.
    fn blame_memory_limit(&self, mut outcome: Outcome) -> Outcome {
        if let (Some(limit), Outcome::Failed { message, .. }) = (self.bounds.memory(), &mut outcome)
            && looks_like_lack_of_memory(message)
        {
            message.push_str(&format!("\n(its memory_limit is {limit} bytes)"));
        }
        outcome
    }
}

/// What interpreters and C libraries write, and how a process ends that handles no failed allocation.
fn looks_like_lack_of_memory(message: &str) -> bool {
    let said = message.to_lowercase();
    said.starts_with("was killed by") || ["memory", "out of space"].iter().any(|words| said.contains(words))
}

/// What can be said of an executable: that it is one task.
pub(crate) fn executable_manifest(identifier: &str) -> ManifestInfo {
    let task = TaskSpec {
        name: identifier.to_owned(),
        description: String::new(),
        timeout: None,
        max_attempts: None,
        schedules: Vec::new(),
    };
    ManifestInfo {
        name: identifier.to_owned(),
        version: String::new(),
        sdk: String::new(),
        profile: String::new(),
        abi: (0, 0),
        panic_abort: false,
        tasks: vec![task],
    }
}

fn command(path: &Path, job: &JobInput<'_>, bounds: &Bounds) -> Command {
    let mut command = Command::new(path);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Its whole group is what gets signals; and Ctrl-C in a terminal is for the host.
        .process_group(0)
        .kill_on_drop(true)
        .env("GRAPHILE_WORKER_PAYLOAD_FORMAT", "json")
        .env("GRAPHILE_WORKER_TASK_IDENTIFIER", job.task)
        .env("GRAPHILE_WORKER_JOB_ID", job.id.to_string())
        .env("GRAPHILE_WORKER_JOB_ATTEMPTS", job.attempt.to_string())
        .env("GRAPHILE_WORKER_JOB_MAX_ATTEMPTS", job.max_attempts.to_string())
        .env("GRAPHILE_WORKER_JOB_PRIORITY", job.priority.to_string())
        .env("GRAPHILE_WORKER_JOB_RUN_AT", iso_8601(job.run_at_us));
    match job.key {
        Some(key) => command.env("GRAPHILE_WORKER_JOB_KEY", key),
        None => command.env_remove("GRAPHILE_WORKER_JOB_KEY"),
    };
    bounds.name_user(&mut command);
    libc_calls::end_with_this_process(&mut command, bounds.clone());
    command
}

/// As JavaScript writes times: in UTC, with milliseconds.
fn iso_8601(micros: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(micros.div_euclid(1_000)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// The system says "no such file" of a script whose interpreter is missing.
fn explain(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound if path.exists() => match interpreter(path) {
            Some(program) => format!("its interpreter {program} does not exist: install it, or change its first line"),
            None => format!("what {shown} needs to be run does not exist ({error})"),
        },
        io::ErrorKind::PermissionDenied => format!(
            "permission denied to run {shown}: is its file system mounted noexec, or may this user not run it or its interpreter?"
        ),
        _ => format!("{shown}: {error}"),
    }
}

/// What the first line of a script says.
fn interpreter(path: &Path) -> Option<String> {
    use io::Read;
    let file =
        fs::File::open(path).ok().filter(|file| file.metadata().is_ok_and(|found| !found.file_type().is_fifo()))?;
    let mut head = Vec::new();
    file.take(256).read_to_end(&mut head).ok()?;
    interpreter_of(&head)
}

/// The interpreter that a script's contents ask for in their first line.
pub(crate) fn interpreter_of(contents: &[u8]) -> Option<String> {
    let line = contents.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line).into_owned();
    // The kernel takes a carriage return for a part of the name.
    let word = line.trim_start_matches([' ', '\t']).split([' ', '\t']).next().filter(|word| !word.is_empty())?;
    Some(word.escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_javascript_does() {
        assert_eq!(iso_8601(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso_8601(1_700_000_000_123_999), "2023-11-14T22:13:20.123Z");
        assert_eq!(iso_8601(-1), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_lack_of_memory_is_told_from_other_failures() {
        for said in
            ["exited with code 1:\nMemoryError", "exited with code 2:\nsh: 1: Out of space", "was killed by SIGABRT"]
        {
            assert!(looks_like_lack_of_memory(said), "{said}");
        }
        assert!(!looks_like_lack_of_memory("exited with code 1:\nno such customer"));
    }

    #[test]
    fn the_interpreter_is_the_first_word_of_the_first_line() {
        assert_eq!(interpreter_of(b"#! /usr/bin/env python3\nx").as_deref(), Some("/usr/bin/env"));
        assert_eq!(interpreter_of(b"#!/bin/sh\r\n").as_deref(), Some("/bin/sh\\r"));
        assert_eq!(interpreter_of(b"#!\n"), None);
        assert_eq!(interpreter_of(b"echo"), None);
    }
}
