//! One throw-away Postgres for the whole test process, and a fresh database for each test.
//!
//! `TASKBAY_TEST_DATABASE_URL` names a server to use instead; its role must be allowed to create databases.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use taskbay::queue::{Database, DatabaseSettings};
use tokio_postgres::{Client, NoTls};

const DEADLINE: Duration = Duration::from_secs(60);

/// A database that only one test uses. Dropped with this.
#[derive(Debug)]
pub(crate) struct TestDatabase {
    name: String,
    config: tokio_postgres::Config,
}

impl TestDatabase {
    /// An empty database.
    pub(crate) async fn new() -> Self {
        Self::made_with("").await
    }

    /// An empty database whose text is in another encoding than UTF-8.
    pub(crate) async fn in_encoding(encoding: &str) -> Self {
        Self::made_with(&format!("template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'")).await
    }

    async fn made_with(options: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let server = server();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("taskbay_test_{}_{number}", std::process::id());
        let admin = connect(server).await;
        admin.batch_execute(&format!("create database {name} {options}")).await.expect("create a test database");
        let mut config = server.clone();
        config.dbname(&name);
        Self { name, config }
    }

    /// For programs: `postgres://…`.
    pub(crate) fn url(&self) -> String {
        let config = &self.config;
        let user = config.get_user().unwrap_or("postgres");
        let password = config.get_password().map(|secret| format!(":{}", String::from_utf8_lossy(secret)));
        let host = match config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            _ => "127.0.0.1".to_owned(),
        };
        format!("postgres://{user}{}@{host}:{}/{}", password.unwrap_or_default(), self.port(), self.name)
    }

    pub(crate) fn port(&self) -> u16 {
        self.config.get_ports().first().copied().unwrap_or(5432)
    }

    /// How to connect.
    pub(crate) fn config(&self) -> tokio_postgres::Config {
        self.config.clone()
    }

    /// The host's settings for it.
    pub(crate) fn settings(&self, schema: &str) -> DatabaseSettings {
        DatabaseSettings::new(self.config(), schema)
    }

    /// As the host uses it, under the usual schema's name.
    pub(crate) fn database(&self) -> Database {
        Database::new(self.settings("graphile_worker")).expect("settings of the test database")
    }

    /// A plain connection, for looking at rows.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.config).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let name = self.name.clone();
        // In a thread of its own because the test's runtime may be on its way out.
        let dropped = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let admin = connect(server()).await;
                // Connections that the test left behind may not keep it.
                let kick = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
                admin.batch_execute(&kick).await.ok();
                admin.batch_execute(&format!("drop database if exists {name}")).await.ok();
            });
            std::io::Result::Ok(())
        });
        let _ = dropped.join();
    }
}

/// A server that only one test uses, with settings of its own. Stopped when this test process ends.
#[derive(Debug)]
pub(crate) struct PrivateServer {
    pub(crate) port: u16,
    pub(crate) folder: PathBuf,
}

impl PrivateServer {
    /// Starts one, with these lines as its access rules and these arguments. `prepare` gets the folder before the start; what
    /// it puts there belongs to the server's account.
    pub(crate) fn start(rules: &str, arguments: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let programs = programs();
        let folder = numbered_folder("private-postgres");
        fs::create_dir_all(&folder).expect("create a folder for a server");
        let account = unprivileged_account();
        hand_over(&folder, account);
        make_cluster(&programs, &folder, account);
        fs::write(folder.join("data/pg_hba.conf"), rules).expect("write the access rules");
        prepare(&folder);
        for file in fs::read_dir(&folder).expect("list the folder").flatten() {
            hand_over(&file.path(), account);
        }
        let port = free_port();
        let mut server = run_server(&programs, &folder, account, port, arguments, &[]);
        wait_until_ready(&mut server, &folder, port);
        // As with the server of all tests.
        std::mem::forget(server);
        Self { port, folder }
    }
}

/// A folder below that of temporary files that nobody else has, and that is not there yet.
pub(super) fn numbered_folder(kind: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("taskbay-{kind}-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

pub(super) fn hand_over(path: &Path, account: Option<(u32, u32)>) {
    if let Some((user, group)) = account {
        chown(path, Some(user), Some(group)).expect("hand a file of the server over");
    }
}

async fn connect(config: &tokio_postgres::Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.expect("connect to the test server");
    tokio::spawn(connection);
    client
}

/// The server of this process, started by the first test that wants it.
fn server() -> &'static tokio_postgres::Config {
    static SERVER: OnceLock<tokio_postgres::Config> = OnceLock::new();
    SERVER.get_or_init(|| match env::var("TASKBAY_TEST_DATABASE_URL") {
        Ok(url) => url.parse().expect("TASKBAY_TEST_DATABASE_URL is a connection string"),
        Err(_) => start(),
    })
}

fn start() -> tokio_postgres::Config {
    let programs = programs();
    let folder = env::temp_dir().join(format!("taskbay-test-postgres-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("create a folder for the test server");
    let account = unprivileged_account();
    if let Some((user, group)) = account {
        chown(&folder, Some(user), Some(group)).expect("hand the folder of the test server over");
    }
    make_cluster(&programs, &folder, account);
    let port = free_port();
    let mut server = run_server(&programs, &folder, account, port, &[], &[]);
    wait_until_ready(&mut server, &folder, port);
    // Its standard input is the rope: see `run_server`. It is held until this process ends, however it does.
    std::mem::forget(server);
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("postgres").dbname("postgres");
    config
}

pub(super) fn programs() -> PathBuf {
    server_programs().unwrap_or_else(|| {
        panic!("the tests need the server programs of PostgreSQL (initdb and postgres): apt-get install postgresql")
    })
}

/// The folder with the server's programs: where PATH finds them, where `pg_config` says, where Debian puts them.
fn server_programs() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let mut versions: Vec<PathBuf> =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    versions.sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    folders.extend(versions.into_iter().rev().map(|version| version.join("bin")));
    folders.into_iter().find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// Postgres refuses to run as root, so root takes another account.
pub(super) fn unprivileged_account() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = ["postgres", "nobody"].iter().find_map(|wanted| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    assert!(
        found.is_some(),
        "Postgres does not run as root, and there is no account `postgres` or `nobody` to run it as"
    );
    found
}

pub(super) fn as_account(command: &mut Command, account: Option<(u32, u32)>) -> &mut Command {
    if let Some((user, group)) = account {
        command.uid(user).gid(group);
    }
    command
}

pub(super) fn make_cluster(programs: &Path, folder: &Path, account: Option<(u32, u32)>) {
    let mut initdb = Command::new(programs.join("initdb"));
    initdb
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres", "--no-sync", "-D"])
        .arg(folder.join("data"))
        .current_dir(folder);
    let output = as_account(&mut initdb, account).output().expect("run initdb");
    assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// Starts the server below a shell that waits for the end of its input. That end comes when this process is gone, even if
/// it was killed; then the shell stops the server and removes the folder.
pub(super) fn run_server(
    programs: &Path,
    folder: &Path,
    account: Option<(u32, u32)>,
    port: u16,
    arguments: &[&str],
    environment: &[(&str, PathBuf)],
) -> Child {
    const SCRIPT: &str = r#"
        trap '' INT TERM HUP
        program=$1 folder=$2 port=$3
        shift 3
        "$program" -D "$folder/data" -k "$folder" -p "$port" -c listen_addresses=127.0.0.1 -c max_connections=300 \
            -c fsync=off -c synchronous_commit=off -c full_page_writes=off "$@" >"$folder/log" 2>&1 </dev/null &
        read -r rope
        kill -QUIT $! && wait $!
        cd / && rm -rf "$folder"
    "#;
    let mut shell = Command::new("sh");
    shell
        .args(["-c", SCRIPT, "taskbay-test-postgres"])
        .arg(programs.join("postgres"))
        .arg(folder)
        .arg(port.to_string())
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // The terminal's Ctrl-C is for the tests.
        .process_group(0);
    as_account(&mut shell, account).spawn().expect("start the test server")
}

fn wait_until_ready(server: &mut Child, folder: &Path, port: u16) {
    let asked = Instant::now();
    let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
    while !log().contains("database system is ready to accept connections") {
        let ended = server.try_wait().expect("ask after the test server").is_some() || log().contains("FATAL");
        assert!(!ended && asked.elapsed() < DEADLINE, "Postgres did not start on port {port}:\n{}", log());
        thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}
