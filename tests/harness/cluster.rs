//! A Postgres of a test's own, which it may stop, kill, start again, and follow by a standby.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Config, NoTls};

use super::{
    clock::JumpingClock,
    postgres::{
        as_account, free_port, hand_over, make_cluster, numbered_folder, programs, run_server, unprivileged_account,
    },
    processes::{children_of, is_alive, wait_until_gone},
    program::DEADLINE,
    wait::{until, until_true},
};

/// What the server is told of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It ends all connections, and then itself.
    Fast,
    /// As if the power went: it looks through its log at the next start.
    Immediate,
    /// Not even that much.
    Kill,
}

/// A server and the database `jobs` in it. It ends with this test process.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    port: u16,
    account: Option<(u32, u32)>,
    arguments: Vec<String>,
    clock: Option<JumpingClock>,
}

impl Cluster {
    /// A running server. What a client was told to be stored is still there after every end, unlike on the server of all tests.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_by(|_| None, arguments).await
    }

    /// The same with a clock that can be set.
    pub async fn start_with_clock(arguments: &[&str]) -> Self {
        let cluster = Self::start_by(|folder| Some(JumpingClock::new(folder)), arguments).await;
        cluster.clock().set(3_600);
        let sql = "select extract(epoch from clock_timestamp())::float8";
        let theirs: f64 = cluster.client().await.query_one(sql, &[]).await.expect("ask for the time").get(0);
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs_f64();
        assert!((theirs - ours - 3_600.0).abs() < 600.0, "Postgres does not go by the clock that the test sets");
        cluster.clock().set(0);
        cluster
    }

    async fn start_by(clock: impl FnOnce(&Path) -> Option<JumpingClock>, arguments: &[&str]) -> Self {
        let folder = numbered_folder("cluster");
        let account = unprivileged_account();
        fs::create_dir_all(&folder).expect("create a folder for a server");
        hand_over(&folder, account);
        make_cluster(&programs(), &folder, account);
        let mut all = vec!["-c", "synchronous_commit=on", "-c", "wal_level=replica", "-c", "max_wal_senders=4"];
        all.extend(arguments);
        let arguments = all.into_iter().map(str::to_owned).collect();
        let clock = clock(&folder);
        let cluster = Self { folder, port: free_port(), account, arguments, clock };
        cluster.start_again().await;
        cluster.client_of("postgres").await.batch_execute("create database jobs").await.expect("create the database");
        cluster
    }

    /// A server that follows this one, which is restarted for it: read-only until it is promoted. From then on, nothing is stored
    /// before both have it.
    pub async fn standby(&self) -> Self {
        let standby = self.follower(self.port).await;
        let wait = "alter system set synchronous_standby_names = '*'";
        let client = self.client().await;
        client.batch_execute(wait).await.expect("have it wait for the standby");
        client.batch_execute("select pg_reload_conf()").await.expect("have it read its settings");
        let sql = "select count(*) = 1 from pg_stat_replication where sync_state = 'sync'";
        let follows = async || client.query_one(sql, &[]).await.expect("ask for the standby").get(0);
        until_true("the standby follows", follows).await;
        standby
    }

    /// The same, and this server does not wait for it. It follows through whatever listens on `port`.
    pub async fn follower(&self, port: u16) -> Self {
        let folder = numbered_folder("cluster");
        fs::create_dir_all(&folder).expect("create a folder for a server");
        hand_over(&folder, self.account);
        self.end(End::Fast).await;
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(self.folder.join("data")).arg(&folder);
        let output = as_account(&mut copy, self.account).output().expect("run cp");
        assert!(output.status.success(), "cp: {}", String::from_utf8_lossy(&output.stderr));
        self.start_again().await;
        let mut arguments = self.arguments.clone();
        let first = format!("primary_conninfo=host=127.0.0.1 port={port} user=postgres");
        arguments.extend(["-c".to_owned(), first]);
        let standby = Self { folder, port: free_port(), account: self.account, arguments, clock: None };
        standby.follow(true);
        standby.start_again().await;
        standby
    }

    /// Makes a standby a server of its own.
    pub async fn promote(&self) {
        self.client().await.batch_execute("select pg_promote()").await.expect("promote the standby");
    }

    /// Ends the server, and returns when it has ended.
    pub async fn end(&self, how: End) {
        match how {
            End::Fast => self.signal(Signal::INT),
            End::Immediate => self.signal(Signal::QUIT),
            End::Kill => return self.kill().await,
        }
        self.wait_until_ended().await;
    }

    async fn kill(&self) {
        let pid = self.pid().expect("the server runs");
        // So that it starts no process that is not listed.
        self.signal(Signal::STOP);
        let below = children_of(pid);
        self.signal(Signal::KILL);
        // They notice by themselves.
        for (pid, _) in below {
            wait_until_gone(pid).await;
        }
        // The shell that started it has not been told of its end yet, so that the next server would take it for alive.
        for file in ["data/postmaster.pid".to_owned(), format!(".s.PGSQL.{}.lock", self.port)] {
            fs::remove_file(self.folder.join(file)).expect("remove the file of a server that is dead");
        }
    }

    /// Waits until the server has ended that was told to.
    pub async fn wait_until_ended(&self) {
        let Some(pid) = self.pid() else { return };
        until(
            "the server has ended",
            async || {
                if is_alive(pid) { Err((children_of(pid), self.log())) } else { Ok(()) }
            },
        )
        .await;
    }

    /// Whether the server is a standby from its next start on. One that has nobody to follow waits for somebody to come.
    pub fn follow(&self, follows: bool) {
        let file = self.folder.join("data/standby.signal");
        if follows {
            fs::write(&file, "").expect("make it a standby");
            hand_over(&file, self.account);
        } else {
            fs::remove_file(&file).expect("make it a server of its own");
        }
    }

    /// Sends a signal to the server's first process.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid().expect("the server runs");
        let pid = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("a process id");
        kill_process(pid, signal).expect("send a signal to the server");
    }

    /// Starts the server without waiting until it is ready. Its end may be a moment ago: as long as processes of the one before
    /// are still there, it refuses to start.
    pub async fn begin(&self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let log = self.folder.join("log");
            let _ = fs::remove_file(&log);
            let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
            // Its standard input is the rope: see `run_server`. It is held until this process ends, however it does.
            let environment = self.clock.as_ref().map(JumpingClock::environment).unwrap_or_default();
            let server = run_server(&programs(), &self.folder, self.account, self.port, &arguments, environment);
            std::mem::forget(server);
            loop {
                let said = fs::read_to_string(&log).unwrap_or_default();
                if said.contains("starting PostgreSQL") {
                    return;
                }
                assert!(Instant::now() < deadline, "Postgres does not start on port {}:\n{said}", self.port);
                sleep(Duration::from_millis(10)).await;
                if said.contains("FATAL") {
                    break;
                }
            }
        }
    }

    /// Starts the server, on the same port as always.
    pub async fn start_again(&self) {
        self.begin().await;
        until("Postgres is ready", async || {
            self.config("postgres", self.port).connect(NoTls).await.map(drop).map_err(|_| self.log())
        })
        .await;
    }

    /// The one of a server that was [started with it](Self::start_with_clock).
    pub fn clock(&self) -> &JumpingClock {
        self.clock.as_ref().expect("the server was started with a clock")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// For programs, through whatever listens on this port.
    pub fn url_by(&self, port: u16) -> String {
        format!("postgres://postgres@127.0.0.1:{port}/jobs")
    }

    pub fn url(&self) -> String {
        self.url_by(self.port)
    }

    /// A connection to the server, past every proxy.
    pub async fn client(&self) -> Client {
        self.client_of("jobs").await
    }

    async fn client_of(&self, database: &str) -> Client {
        self.try_client(database).await.expect("connect to the server of this test")
    }

    pub async fn try_client(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config(database, self.port).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub fn config(&self, database: &str, port: u16) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).user("postgres").dbname(database).application_name("test");
        config.connect_timeout(Duration::from_secs(2));
        config
    }

    fn pid(&self) -> Option<u32> {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The folder goes with this process; see `run_server`.
        if let Some(pid) = self.pid().filter(|pid| is_alive(*pid))
            && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, Signal::QUIT);
        }
        if std::thread::panicking() && env::var_os("TASKBAY_TEST_SERVER_LOG").is_some() {
            eprintln!("--- the log of Postgres ---\n{}", self.log());
        }
    }
}
