//! Starts the server or joins it, and waits until it answers.

use std::{
    fmt::Write as _,
    fs, io,
    net::{Ipv4Addr, TcpListener},
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio_postgres::NoTls;

use super::{
    EmbeddedPostgresError, account, cluster,
    error::files,
    folder::{Folder, State},
    programs::Programs,
};

/// The name of the database in the cluster.
const DATABASE: &str = "taskbay";
/// How long the server may take until it answers; after a crash it has to recover first.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// What a socket's address can hold, without the NUL at its end.
const LONGEST_SOCKET_PATH: usize = 107;
/// How often another port is tried when the chosen one was taken in the meantime.
const PORTS: usize = 5;

/// A server that answers.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) url: String,
    pub(super) tcp_url: String,
}

/// Whether the server can be used yet.
enum Answer {
    Ready,
    /// It is not there any more.
    Gone,
}

/// Uses the server that runs, or starts one. The caller holds the lock for starting, and a lease.
pub(super) async fn start_or_join(
    folder: &Folder,
    program: &Path,
) -> Result<(Server, Option<Child>), EmbeddedPostgresError> {
    // A server whose supervisor was killed is on its way out: its end is waited for, then another one is started.
    if folder.server_runs()
        && let Some(state) = folder.state()
        && let Answer::Ready = wait_for_answer(folder, &state, || folder.server_runs()).await?
    {
        return Ok((finish(&state), None));
    }
    let preparing = folder.clone();
    let programs = in_background(move || cluster::prepare(&preparing)).await?;
    for _ in 0..PORTS {
        let state = choose(folder)?;
        let mut supervisor = spawn(folder, program, &programs, &state)?;
        let alive = || matches!(supervisor.try_wait(), Ok(None));
        match wait_for_answer(folder, &state, alive).await? {
            Answer::Ready => {
                set_up(&state).await?;
                let server = finish(&state);
                folder.store(&state, &server.tcp_url)?;
                return Ok((server, Some(supervisor)));
            }
            Answer::Gone if log_tail(folder).contains("in use") => {}
            Answer::Gone => break,
        }
    }
    Err(EmbeddedPostgresError::Start { log: folder.log(), tail: log_tail(folder) })
}

/// Uses the server that runs. The caller holds a lease.
pub(super) async fn join(folder: &Folder) -> Result<Server, EmbeddedPostgresError> {
    let gone = || EmbeddedPostgresError::NoAnswer("it is just starting or stopping; try again".to_owned());
    let state = folder.state().ok_or_else(gone)?;
    match wait_for_answer(folder, &state, || folder.server_runs()).await? {
        Answer::Ready => Ok(finish(&state)),
        Answer::Gone => Err(gone()),
    }
}

fn finish(state: &State) -> Server {
    let State { port, password, socket_folder } = state;
    let host = percent_encode(socket_folder.as_os_str().as_bytes());
    Server {
        url: format!("postgres://postgres@{host}:{port}/{DATABASE}"),
        tcp_url: format!("postgres://postgres:{password}@127.0.0.1:{port}/{DATABASE}"),
    }
}

/// The port and the password of the last time, so that addresses which were written down stay right.
fn choose(folder: &Folder) -> Result<State, EmbeddedPostgresError> {
    let before = folder.state();
    let port = before
        .as_ref()
        .map(|state| state.port)
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .map_or_else(free_port, Ok)
        .map_err(files("find a free port for", folder.path()))?;
    let password = before.map_or_else(secret, |state| state.password);
    Ok(State { port, password, socket_folder: socket_folder(folder)? })
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn secret() -> String {
    rand::random::<[u8; 16]>().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A folder for the socket that only the server's user can enter: beside the data, or if that path is too long for a
/// socket, a fresh one in the folder for temporary files.
fn socket_folder(folder: &Folder) -> Result<PathBuf, EmbeddedPostgresError> {
    let beside = folder.path().join("socket");
    if beside.as_os_str().len() + "/.s.PGSQL.65535".len() <= LONGEST_SOCKET_PATH {
        folder.make_for_server(&beside)?;
        return Ok(beside);
    }
    let short = PathBuf::from(format!("/tmp/taskbay-{}", &secret()[..16]));
    // Fails if it exists, so nobody can have prepared it.
    fs::DirBuilder::new().mode(0o700).create(&short).map_err(files("create", &short))?;
    account::give(&short, folder.account).map_err(files("give to the server's user", &short))?;
    Ok(short)
}

fn spawn(folder: &Folder, program: &Path, programs: &Programs, state: &State) -> Result<Child, EmbeddedPostgresError> {
    let mut command = Command::new(program);
    command.args(["postgres-child", "supervise"]).arg(folder.path()).arg(&programs.postgres);
    command.arg(&state.socket_folder).arg(state.port.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(files("run", program))
}

/// Waits until the server answers, or is not `alive`.
async fn wait_for_answer(
    folder: &Folder,
    state: &State,
    mut alive: impl FnMut() -> bool,
) -> Result<Answer, EmbeddedPostgresError> {
    let deadline = Instant::now() + ANSWER_WITHIN;
    loop {
        let error = match connect(state, "postgres").await {
            Ok(_) => return Ok(Answer::Ready),
            Err(error) => error,
        };
        if !alive() {
            return Ok(Answer::Gone);
        }
        if Instant::now() > deadline {
            let tail = format!("{error}; {}", log_tail(folder));
            return Err(EmbeddedPostgresError::Start { log: folder.log(), tail });
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

async fn connect(state: &State, database: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(&state.socket_folder).port(state.port).user("postgres").dbname(database);
    let (client, connection) = config.connect(NoTls).await?;
    // Ends with the client.
    tokio::spawn(connection);
    Ok(client)
}

/// Makes the database and sets the password for the port.
async fn set_up(state: &State) -> Result<(), EmbeddedPostgresError> {
    let set_up = async {
        let client = connect(state, "postgres").await?;
        client.batch_execute(&format!("alter role postgres password '{}'", state.password)).await?;
        if client.query_opt("select from pg_database where datname = $1", &[&DATABASE]).await?.is_none() {
            client.batch_execute(&format!("create database {DATABASE}")).await?;
        }
        Ok::<_, tokio_postgres::Error>(())
    };
    set_up.await.map_err(|error| EmbeddedPostgresError::NoAnswer(error.to_string()))
}

/// The end of the server's log.
fn log_tail(folder: &Folder) -> String {
    let log = fs::read(folder.log()).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.trim_end().lines().collect();
    match lines.len() {
        0 => "it wrote no log".to_owned(),
        count => lines[count.saturating_sub(5)..].join("; "),
    }
}

fn percent_encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// Does what may block on a thread that may.
pub(super) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EmbeddedPostgresError> + Send + 'static,
) -> Result<T, EmbeddedPostgresError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
