//! The program itself, run as a user runs it, and its log as something to wait for.

use std::{
    cell::Cell,
    ffi::OsStr,
    fmt, fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::watch, time::Instant};

use super::{
    clock::JumpingClock,
    ledger::Ledger,
    wait::{Patience, STEP},
};

/// How long anything that must happen may take on a slow and busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A call of the program that is being put together. Its working folder is its own.
#[must_use]
pub struct Taskbay {
    command: Command,
    home: TempDir,
}

impl Taskbay {
    /// `taskbay SUBCOMMAND`, with nothing of this process's database settings.
    pub fn command(subcommand: &str) -> Self {
        let home = tempfile::tempdir().expect("a folder for the program");
        let mut command = Command::new(env!("CARGO_BIN_EXE_taskbay"));
        command.arg(subcommand).current_dir(home.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| {
            ["PG", "TASKBAY_", "GRAPHILE_"].iter().any(|prefix| name.starts_with(prefix)) || name == "DATABASE_URL"
        }) {
            command.env_remove(name);
        }
        command.env_remove("RUST_LOG");
        Self { command, home }
    }

    /// `taskbay run FOLDER` against a database, with a log that [`Running`] can read.
    pub fn run(database_url: &str, folder: &Path) -> Self {
        Self::command("run")
            .arg(folder)
            .env("DATABASE_URL", database_url)
            .args(["--log-format", "json"])
            .arg("--log-level=debug")
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives it a clock that can be set.
    pub fn by_clock(mut self, clock: &JumpingClock) -> Self {
        self.command.envs(clock.environment().iter().map(|(name, value)| (name, value)));
        self
    }

    /// Has another program start it, which gets the whole command after its own arguments.
    pub fn below(mut self, program: &str, args: &[&OsStr]) -> Self {
        let mut command = Command::new(program);
        command.args(args).arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(self.home.path()).stdin(Stdio::null());
        self.command = command;
        self
    }

    /// What it reads; nothing without.
    pub fn stdin(mut self, input: impl Into<Stdio>) -> Self {
        self.command.stdin(input);
        self
    }

    /// Runs it in another folder than its own.
    pub fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Adds to its `taskbay.toml`.
    pub fn settings(self, toml: &str) -> Self {
        let file = self.home.path().join("taskbay.toml");
        let before = fs::read_to_string(&file).unwrap_or_default();
        fs::write(file, format!("{before}{toml}\n")).expect("write taskbay.toml");
        self
    }

    /// Tells the `echo` task of `misbehaving` where to note its runs.
    pub fn ledger(self, ledger: &Ledger) -> Self {
        self.settings(&format!("[plugins.misbehaving.settings]\necho_file = {:?}", ledger.path()))
    }

    /// Its working folder.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn output(mut self) -> Output {
        self.command.output().expect("run taskbay")
    }

    /// Runs it to its end with its results going somewhere else.
    #[track_caller]
    pub fn output_to(mut self, results: impl Into<Stdio>) -> Output {
        self.command
            .stdout(results)
            .stderr(Stdio::piped())
            .spawn()
            .and_then(Child::wait_with_output)
            .expect("run taskbay")
    }

    /// Starts it with its log going somewhere else. The folder is the one that it runs in.
    #[track_caller]
    pub fn spawn_with_log(mut self, log: impl Into<Stdio>) -> (Child, TempDir) {
        (self.command.stdout(Stdio::null()).stderr(log).spawn().expect("start taskbay"), self.home)
    }

    /// Starts it.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start taskbay");
        let log = Arc::new(Log::default());
        log.follow(child.stderr.take().expect("stderr is piped"));
        log.follow(child.stdout.take().expect("stdout is piped"));
        Running { child, log, _home: self.home }
    }

    /// Starts it and waits until it works jobs.
    pub async fn ready(self) -> Running {
        let host = self.spawn();
        host.event("worker_ready", |_| true).await;
        host
    }

    /// Starts it and waits until it works jobs and hears of new ones.
    pub async fn listening(self) -> Running {
        let host = self.ready().await;
        host.event("listening", |_| true).await;
        host
    }
}

/// Picks the log lines of a job.
pub fn of_job(id: i64) -> impl Fn(&Value) -> bool {
    move |line| line["job"] == id
}

/// The program while it runs. Dropping it kills it; if the test failed, its log is printed.
pub struct Running {
    child: Child,
    log: Arc<Log>,
    _home: TempDir,
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a log line with this event name that `matches`; one that was written before counts too.
    #[track_caller]
    pub fn event<'a>(
        &'a self,
        name: &'a str,
        matches: impl Fn(&Value) -> bool + 'a,
    ) -> impl Future<Output = Value> + 'a {
        self.line(move |line| line["event"] == *name && matches(line))
    }

    /// Waits for the nth log line, from 1, with one of these event names.
    #[track_caller]
    pub fn nth_event<'a>(&'a self, names: &'a [&'a str], nth: usize) -> impl Future<Output = Value> + 'a {
        let seen = Cell::new(0);
        self.line(move |line| {
            seen.set(seen.get() + usize::from(line["event"].as_str().is_some_and(|name| names.contains(&name))));
            seen.get() == nth
        })
    }

    /// Waits for a log line; each is looked at once, in their order.
    #[track_caller]
    pub fn line<'a>(&'a self, matches: impl Fn(&Value) -> bool + 'a) -> impl Future<Output = Value> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let mut seen = 0;
            let mut more = self.log.count.subscribe();
            let mut patience = Patience::new();
            loop {
                let found = self.log.lines.lock().unwrap()[seen..]
                    .iter()
                    .inspect(|_| seen += 1)
                    .find(|line| matches(line))
                    .cloned();
                if let Some(line) = found {
                    return line;
                }
                let changed = tokio::time::timeout(STEP, more.changed()).await.is_ok();
                assert!(!patience.is_over(changed), "what was waited for at {place} did not come: {patience}");
            }
        }
    }

    /// All log lines with this event name so far.
    pub fn events(&self, name: &str) -> Vec<Value> {
        self.log.lines.lock().unwrap().iter().filter(|line| line["event"] == *name).cloned().collect()
    }

    /// All log lines so far.
    pub fn lines(&self) -> Vec<Value> {
        self.log.lines.lock().unwrap().clone()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).expect("send a signal to taskbay");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut more = self.log.count.subscribe();
        let mut patience = Patience::new();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait for taskbay") {
                self.log.read_to_the_end().await;
                return status;
            }
            // The end of its output is the hint; the short timeout covers a process that closed its output before it ended.
            let hint = tokio::time::timeout(Duration::from_millis(20), more.changed()).await;
            assert!(!patience.is_over(matches!(hint, Ok(Ok(())))), "taskbay did not end: {patience}");
        }
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(mut self) {
        self.signal(Signal::TERM);
        self.ended_by(Signal::TERM).await;
    }

    /// Waits for its end, which must be that which the signal has by default: supervisors and shells expect it.
    pub async fn ended_by(&mut self, signal: Signal) {
        let status = self.ended().await;
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status:?}");
        assert_eq!(self.events("stopped").len(), 1, "it stopped in order");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the log of taskbay ---\n{}", self.log);
        }
    }
}

/// The lines of a running program; those that are not JSON are kept as strings.
struct Log {
    lines: Mutex<Vec<Value>>,
    count: watch::Sender<usize>,
    /// How many outputs are still read.
    open: AtomicUsize,
}

impl Default for Log {
    fn default() -> Self {
        Self { lines: Mutex::default(), count: watch::Sender::new(0), open: AtomicUsize::new(0) }
    }
}

impl Log {
    fn follow(self: &Arc<Self>, output: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        log.open.fetch_add(1, Ordering::AcqRel);
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                let mut lines = log.lines.lock().unwrap();
                lines.push(line);
                log.count.send_replace(lines.len());
            }
            log.open.fetch_sub(1, Ordering::AcqRel);
            log.count.send_modify(|_| {});
        });
    }

    /// Waits until everything is read that the program has written. Something that it started may hold its output open, so
    /// there is an end to that.
    async fn read_to_the_end(&self) {
        let mut more = self.count.subscribe();
        let patience = Instant::now() + Duration::from_secs(10);
        while self.open.load(Ordering::Acquire) > 0 && tokio::time::timeout_at(patience, more.changed()).await.is_ok() {
        }
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines.lock().unwrap();
        let skipped = lines.len().saturating_sub(200);
        if skipped > 0 {
            writeln!(f, "… {skipped} lines before")?;
        }
        lines[skipped..].iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
