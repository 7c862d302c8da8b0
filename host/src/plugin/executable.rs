//! The runner of executable files: each job is a separate process, with the protocol of graphile-worker.
//!
//! The file runs from its own path, because scripts locate their other files relative to it. A run therefore starts only
//! while the file is the verified one; a file that is being replaced takes no jobs until it is verified again.

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
    pre_exec::end_with_this_process,
    spawner::spawn,
};
use crate::{
    blocking::off_the_runtime,
    events::{Events, PluginBuild},
};

/// The default time limit of a job, as in graphile-worker.
pub(super) const TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);

/// The wait for a file that is open for writing before its job is released. Most writers finish within a moment.
const BUSY_FOR: Duration = Duration::from_secs(1);
const FIRST_BUSY_WAIT: Duration = Duration::from_millis(5);

/// The time for an interpreter to read its script. Shells read while they run, but writers are not blocked for that long.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// A verified executable file.
#[derive(Debug, Clone)]
pub struct ExecutableFile {
    /// The name of its task and of its settings.
    pub identifier: String,
    /// The path; if it is a link, its target runs.
    pub path: PathBuf,
    /// Identifies the contents.
    pub build: BuildId,
    /// The verified state.
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

    /// Runs a job to its end.
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

    /// Records a new state of the file, after a check found the same contents.
    pub(super) fn verify_again(&self, key: FileKey) {
        *self.verified.lock().unwrap_or_else(PoisonError::into_inner) = key;
        self.change_availability(&Availability::Restarting, Availability::Serving);
    }

    /// Starts the process, if the file is still the verified one. While the lease is held, other processes cannot write to it.
    async fn start(&self, job: &JobInput<'_>) -> Result<Option<(Child, Lease)>, String> {
        let (began, mut wait) = (Instant::now(), FIRST_BUSY_WAIT);
        while let Some((path, lease)) = self.verified_file().await {
            if let Ok(lease) = lease {
                match spawn(command(&path, job, &self.bounds)).await {
                    Ok(child) => return Ok(Some((child, lease))),
                    Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
                    Err(error) => return Err(format!("could not be started: {}", explain(&path, &error))),
                }
            }
            // Open for writing in another process, possibly inherited by a process that is just starting.
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

    /// The path to run, if it has the verified contents. Links are resolved here, so the checked file is the one that runs.
    async fn verified_file(&self) -> Option<(PathBuf, Result<Lease, BeingWritten>)> {
        let (path, verified) = (self.path.clone(), self.verified());
        // Off the runtime, because the file may be on a file server.
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

    /// Adds a note to an error if the file was written to during the run: shells read a script while they run it.
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

    /// Adds the memory limit to a failure that looks like a lack of memory.
    fn blame_memory_limit(&self, mut outcome: Outcome) -> Outcome {
        if let (Some(limit), Outcome::Failed { message, .. }) = (self.bounds.memory(), &mut outcome)
            && looks_like_lack_of_memory(message)
        {
            message.push_str(&format!("\n(its memory_limit is {limit} bytes)"));
        }
        outcome
    }
}

/// Whether a failure looks like a lack of memory: by messages of interpreters and C libraries, or a signal.
fn looks_like_lack_of_memory(message: &str) -> bool {
    let said = message.to_lowercase();
    said.starts_with("was killed by") || ["memory", "out of space"].iter().any(|words| said.contains(words))
}

/// The manifest of an executable, which has one task.
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
        // Signals go to the whole process group; Ctrl-C in a terminal is for the host only.
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
    end_with_this_process(&mut command, bounds.clone());
    command
}

/// A time in the format of JavaScript: in UTC, with milliseconds.
fn iso_8601(micros: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(micros.div_euclid(1_000)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Explains an error; for a script with a missing interpreter, the system reports only "no such file".
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

/// The interpreter in a script's first line.
fn interpreter(path: &Path) -> Option<String> {
    use io::Read;
    let file =
        fs::File::open(path).ok().filter(|file| file.metadata().is_ok_and(|found| !found.file_type().is_fifo()))?;
    let mut head = Vec::new();
    file.take(256).read_to_end(&mut head).ok()?;
    interpreter_of(&head)
}

/// The interpreter in the first line of a script's contents.
pub(crate) fn interpreter_of(contents: &[u8]) -> Option<String> {
    let line = contents.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line).into_owned();
    // To the kernel, a carriage return is part of the name.
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
