//! A process of a plugin from the host's side: its start, its connection and its end.

use std::{
    io::{ErrorKind, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
        unix::process::ExitStatusExt,
    },
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    DatabaseAccess, HostServices, Image, LaunchError, ManifestInfo, PluginSettings,
    bounds::{Bounds, is_used_up},
    connection::{Connection, Ends, Milestone},
    frames::Hello,
    host_calls::max_level,
    output::Output,
    spawner::spawn,
};
use crate::events::PluginBuild;

/// The variables that give access to the database; a plugin's process does not get them unless its settings say so.
const INTO_THE_DATABASE: [&str; 3] = ["DATABASE_URL", "TASKBAY_DATABASE_URL", "PGPASSWORD"];
/// The variables between the host and its service manager.
const NOT_ITS_BUSINESS: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The time limit of a retired plugin's teardown. It has no running jobs, so this only bounds a hang.
pub(super) const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// A running process with its connection and its output. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) connection: Arc<Connection>,
    _ends: Ends,
    output: Output,
    memory_limit: Option<u64>,
}

/// The progress of a launch.
#[derive(Debug)]
enum Stage {
    Spawned,
    Loading,
    Loaded(ManifestInfo),
}

/// A description of a process's end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// "was killed by …".
    pub(super) what: String,
    /// Its own output about the end.
    pub(super) detail: Option<String>,
}

/// Loads a build in a separate process without starting it up, and returns its manifest: for `taskbay check`, and to keep a
/// file with a crashing constructor out of this process.
pub async fn probe(image: &Image, settings: &PluginSettings, program: &Path) -> Result<ManifestInfo, LaunchError> {
    let (_process, manifest) = Process::begin(image, settings, program, None).await?;
    Ok(manifest)
}

/// Starts and ends a build in a separate process, to check its start-up before loading it into this process, where a failed
/// build could never be unmapped.
pub(super) async fn rehearse(
    image: &Image,
    settings: &PluginSettings,
    services: &HostServices,
) -> Result<(), LaunchError> {
    let (mut process, _) = Process::start(image, settings, services).await?;
    process.shut_down(SHUTDOWN_LIMIT).await;
    Ok(())
}

impl Process {
    /// Starts a process; returns after the build in it has started up.
    pub(super) async fn start(
        image: &Image,
        settings: &PluginSettings,
        services: &HostServices,
    ) -> Result<(Self, ManifestInfo), LaunchError> {
        Self::begin(image, settings, &services.program, Some(services)).await
    }

    /// Starts a process; without services, the build is only loaded.
    async fn begin(
        image: &Image,
        settings: &PluginSettings,
        program: &Path,
        services: Option<&HostServices>,
    ) -> Result<(Self, ManifestInfo), LaunchError> {
        let build = PluginBuild { plugin: image.plugin.clone(), build: image.build };
        let failed = |error: std::io::Error| LaunchError::Process(error.to_string());
        let bounds = Bounds::of(settings)?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        send_image(&ours, &image.fd).map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut command = command(program, &build, theirs.into(), &settings.database);
        bounds.name_user(&mut command);
        let mut child = spawn(command).await.map_err(|error| {
            let said = format!("{} could not be run: {error}", program.display());
            match error.kind() {
                ErrorKind::NotFound | ErrorKind::PermissionDenied => LaunchError::Protocol(said),
                _ => LaunchError::Process(said),
            }
        })?;
        let output = Output::capture(&mut child, &build, services.map(|services| &services.events));
        let (milestones, launch) = mpsc::unbounded_channel();
        let (connection, ends) = Connection::open(ours, build, services, milestones).map_err(failed)?;
        connection.hello(&Hello {
            parent: std::process::id(),
            check_only: services.is_none(),
            memory_limit: settings.memory_limit,
            bounds,
            max_level: max_level(),
            settings: serde_json::Value::Object(settings.settings.clone()).to_string(),
        });
        let mut process = Self { child, connection, _ends: ends, output, memory_limit: settings.memory_limit };
        let manifest = process.wait_until_ready(launch, settings.start_timeout, services.is_some()).await?;
        Ok((process, manifest))
    }

    async fn wait_until_ready(
        &mut self,
        mut launch: mpsc::UnboundedReceiver<Milestone>,
        limit: Duration,
        with_start_up: bool,
    ) -> Result<ManifestInfo, LaunchError> {
        let deadline = Instant::now() + limit;
        let mut stage = Stage::Spawned;
        loop {
            let milestone = tokio::select! {
                milestone = launch.recv() => milestone,
                () = sleep_until(deadline) => return Err(self.too_late(&stage, limit)),
            };
            stage = match (milestone, stage) {
                (Some(Milestone::Loading), _) => Stage::Loading,
                (Some(Milestone::Loaded(manifest)), _) if with_start_up => Stage::Loaded(manifest),
                (Some(Milestone::Loaded(manifest)), _) | (Some(Milestone::Ready), Stage::Loaded(manifest)) => {
                    return Ok(manifest);
                }
                (Some(Milestone::Refused(error)), _) => return Err(error),
                (None, stage) => return Err(self.launch_failure(&stage).await),
                (Some(Milestone::Ready), _) => {
                    return Err(LaunchError::Protocol("it was ready before it was loaded".to_owned()));
                }
            };
        }
    }

    async fn launch_failure(&mut self, stage: &Stage) -> LaunchError {
        let status = self.wait_for_exit().await;
        let said = self.output.last_words().await;
        let ending = || Ending::of(status, &said, self.memory_limit).to_string();
        let allocation = said.iter().rev().find(|line| line.contains(FAILED_ALLOCATION));
        // The limit applies only from the loading on.
        if let (Some(limit), Some(line), Stage::Loading | Stage::Loaded(_)) = (self.memory_limit, allocation, stage) {
            return LaunchError::memory_limit(limit, line);
        }
        match (stage, status.code()) {
            (_, None) if status.signal() == Some(libc::SIGKILL) => LaunchError::Killed(ending()),
            (Stage::Spawned, _) => {
                LaunchError::Protocol([vec![format!("it {}", ending())], said.clone()].concat().join("; "))
            }
            (Stage::Loading, Some(code)) => LaunchError::LoadExited(code),
            (Stage::Loading, None) => {
                let Ending { detail, .. } = Ending::of(status, &said, self.memory_limit);
                let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
                LaunchError::LoadCrashed(format!("{}{detail}", signal_name(status)))
            }
            (Stage::Loaded(_), _) => LaunchError::StartCrashed(ending()),
        }
    }

    /// The reason why it was not ready in time. Without memory for a new thread, a wait for that thread never ends.
    fn too_late(&self, stage: &Stage, limit: Duration) -> LaunchError {
        let error = match stage {
            Stage::Spawned | Stage::Loading => LaunchError::LoadTimedOut(limit),
            Stage::Loaded(_) => LaunchError::StartTimedOut(limit),
        };
        match (self.memory_limit, self.child.id()) {
            (Some(memory), Some(id)) if is_used_up(&id.to_string(), memory) => {
                LaunchError::memory_limit(memory, &error.to_string())
            }
            _ => error,
        }
    }

    /// Waits until the process has ended by itself or was terminated, and returns the reason. All its earlier reports have
    /// been delivered by then. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Ending {
        let connection = Arc::clone(&self.connection);
        tokio::select! {
            // Checked first, because a malformed message closes the connection too.
            biased;
            () = connection.terminated() => {
                let _ = self.child.start_kill();
            }
            () = connection.closed() => {}
            _ = self.child.wait() => {}
        }
        let status = self.wait_for_exit().await;
        // Its last output may still be in the pipes, which a process started by it may keep open.
        let _ = timeout(Duration::from_millis(500), connection.closed()).await;
        let said = self.output.last_words().await;
        match connection.verdict() {
            Some(verdict) => Ending::new(verdict),
            None => Ending::of(status, &said, self.memory_limit),
        }
    }

    /// Shuts the plugin down and thus ends the process, or kills it after a time limit.
    pub(super) async fn shut_down(&mut self, limit: Duration) {
        self.connection.shut_down(limit);
        // The child enforces the limit; the extra time is for a child that fails to.
        if timeout(limit + Duration::from_millis(500), self.child.wait()).await.is_err() {
            self.kill().await;
        }
        let _ = timeout(Duration::from_millis(500), self.connection.closed()).await;
        let _ = self.output.last_words().await;
    }

    pub(super) async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }

    /// Gives an ending process a moment before it is killed.
    async fn wait_for_exit(&mut self) -> ExitStatus {
        if let Ok(Ok(status)) = timeout(Duration::from_secs(1), self.child.wait()).await {
            return status;
        }
        let _ = self.child.start_kill();
        self.child.wait().await.unwrap_or_default()
    }
}

fn command(program: &Path, build: &PluginBuild, socket: OwnedFd, database: &DatabaseAccess) -> Command {
    let mut command = Command::new(program);
    command
        .arg0(format!("taskbay: plugin {} build {}", build.plugin, build.build))
        .arg("plugin-child")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C in a terminal is for the host, which ends its plugins itself.
        .process_group(0)
        .kill_on_drop(true);
    let hidden = match database {
        DatabaseAccess::None => &INTO_THE_DATABASE[..],
        DatabaseAccess::Environment => &[],
        // What completes it may stay.
        DatabaseAccess::Url(_) => &INTO_THE_DATABASE[..2],
    };
    for name in NOT_ITS_BUSINESS.iter().chain(hidden) {
        command.env_remove(name);
    }
    if let DatabaseAccess::Url(url) = database {
        command.env("DATABASE_URL", url);
    }
    command
}

fn send_image(socket: &UnixStream, image: &OwnedFd) -> std::io::Result<()> {
    let fds = [image.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
    Ok(())
}

/// The message of a Rust program that ends for lack of memory.
const FAILED_ALLOCATION: &str = "memory allocation of";
/// Lines that explain the end of a Rust program.
const TELLING: [&str; 5] =
    [FAILED_ALLOCATION, "stack overflow", "overflowed its stack", "fatal runtime error", "panicked at"];

impl Ending {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), detail: None }
    }

    /// The error of a job that was running in it.
    pub(super) fn under_a_job(&self, PluginBuild { plugin, build }: &PluginBuild) -> String {
        let detail = self.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        format!("plugin {plugin} (build {build}) {} while it ran this job{detail}", self.what)
    }

    /// Describes an exit status, with the process's last output.
    fn of(status: ExitStatus, said: &[String], memory_limit: Option<u64>) -> Self {
        let what = match status.code() {
            Some(code) => format!("ended by itself with exit status {code}"),
            None => format!("was killed by {}", signal_name(status)),
        };
        let telling = said.iter().rev().find(|line| TELLING.iter().any(|part| line.contains(part)));
        let last = said.last().filter(|_| status.code().is_none());
        let mut detail = telling.or(last).cloned();
        if let (Some(detail), Some(limit)) = (&mut detail, memory_limit)
            && detail.contains(FAILED_ALLOCATION)
        {
            detail.push_str(&format!(" (its memory limit is {limit} bytes)"));
        }
        Self { what, detail }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

pub(super) fn signal_name(status: ExitStatus) -> String {
    let Some(signal) = status.signal() else { return format!("nothing known ({status})") };
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV, an invalid memory access or a stack overflow",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGILL => "SIGILL",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL, by somebody or by the kernel for want of memory",
        libc::SIGTERM => "SIGTERM",
        libc::SIGSYS => "SIGSYS, a forbidden system call",
        libc::SIGTRAP => "SIGTRAP",
        _ => return format!("signal {signal}"),
    };
    format!("signal {signal} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_with_what_helps_to_understand_it() {
        let said = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let describe = |status, said: &[String], limit| Ending::of(status, said, limit).to_string();
        let aborted = ExitStatus::from_raw(libc::SIGABRT);
        assert_eq!(describe(ExitStatus::from_raw(3 << 8), &said(&["bye"]), None), "ended by itself with exit status 3");
        assert_eq!(
            describe(aborted, &said(&["memory allocation of 99 bytes failed", "other"]), Some(1000)),
            "was killed by signal 6 (SIGABRT): memory allocation of 99 bytes failed (its memory limit is 1000 bytes)"
        );
        assert_eq!(describe(aborted, &said(&["one", "two"]), None), "was killed by signal 6 (SIGABRT): two");
        assert!(
            describe(ExitStatus::from_raw(libc::SIGSEGV), &[], None).starts_with("was killed by signal 11 (SIGSEGV")
        );
    }
}
