//! The private Postgres of a folder: who starts it, who keeps it running, who gets in, and what is left of it.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::harness::wait::{until, until_true};
use rustix::process::Signal;
use taskbay::embedded_postgres::EmbeddedPostgres;
use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::harness::program::{Running, Taskbay};

/// A folder that another user may pass through, as the server's user has to where the tests run as root.
fn project() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("open it");
    fs::create_dir(dir.path().join("tasks")).expect("a tasks folder");
    dir
}

/// `taskbay run --embedded-postgres` in a folder, once it takes jobs.
async fn host(dir: &Path) -> Running {
    let host = Taskbay::command("run").current_dir(dir).args(["--embedded-postgres", "--log-format=json"]).spawn();
    host.event("worker_ready", |_| true).await;
    host
}

/// Adds a job with the program, and returns what it printed or its complaint.
fn add(dir: &Path) -> Result<String, String> {
    let output = Taskbay::command("add").arg("nobody_does_this").current_dir(dir).output();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).expect("text").trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// What `taskbay add` says while the server is being started for the first time, which takes a while.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_the_server_is_started_waits_for_it() {
    let dir = project();
    let host =
        Taskbay::command("run").current_dir(dir.path()).args(["--embedded-postgres", "--log-format=json"]).spawn();
    let lock = dir.path().join(".taskbay/postgres/start.lock");
    let is_starting = || {
        let taken = |file: fs::File| file.try_lock_shared().is_err();
        fs::File::open(&lock).is_ok_and(taken)
    };
    until_true("the server is being started", async || is_starting()).await;
    // The schema may not be there yet.
    if let Err(complaint) = add(dir.path()) {
        assert!(complaint.contains("schema graphile_worker is not installed"), "{complaint}");
    }
    host.event("worker_ready", |_| true).await;
    host.stop().await;
}

/// Waits until no process has the folder in its command line any more.
async fn no_server(dir: &Path) {
    until("no server runs", async || match servers(dir) {
        servers if servers.is_empty() => Ok(()),
        servers => Err(servers),
    })
    .await;
}

fn servers(dir: &Path) -> Vec<String> {
    let data = dir.join(".taskbay/postgres");
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(data.to_str().expect("a path of text")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_outlive_the_server_and_the_server_ends_with_the_host() {
    let dir = project();
    let first = host(dir.path()).await;
    assert_eq!(add(dir.path()), Ok("1".to_owned()));
    first.stop().await;
    assert_eq!(servers(dir.path()), [""; 0], "the host waits for the end of its server");
    assert!(add(dir.path()).expect_err("nothing runs").contains("no database is configured"));

    let second = host(dir.path()).await;
    assert_eq!(add(dir.path()), Ok("2".to_owned()));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_leaves_no_server_behind() {
    let dir = project();
    let mut killed = host(dir.path()).await;
    assert!(!servers(dir.path()).is_empty());
    killed.signal(Signal::KILL);
    killed.ended().await;
    no_server(dir.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_supervisor_takes_the_server_with_it_and_the_next_host_starts_another() {
    let dir = project();
    let killed = host(dir.path()).await;
    let pids = fs::read_dir("/proc").expect("list processes").flatten().filter(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains("postgres-child supervise") && line.contains(dir.path().to_str().expect("text"))
    });
    for pid in pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        let pid = rustix::process::Pid::from_raw(pid).expect("a process");
        rustix::process::kill_process(pid, Signal::KILL).expect("kill the supervisor");
    }
    no_server(dir.path()).await;
    drop(killed);
    let next = host(dir.path()).await;
    assert!(add(dir.path()).is_ok());
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_in_one_folder_share_a_server_until_the_last_one_leaves() {
    let dir = project();
    let first = host(dir.path()).await;
    let second = host(dir.path()).await;
    first.stop().await;
    assert_eq!(add(dir.path()), Ok("1".to_owned()), "the first one to leave must not stop it");
    second.stop().await;
    no_server(dir.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_folders_have_two_servers() {
    let (one, two) = (project(), project());
    let hosts = tokio::join!(host(one.path()), host(two.path()));
    assert_eq!((add(one.path()), add(one.path())), (Ok("1".to_owned()), Ok("2".to_owned())));
    assert_eq!(add(two.path()), Ok("1".to_owned()));
    tokio::join!(hosts.0.stop(), hosts.1.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_in() {
    let dir = project();
    let host = host(dir.path()).await;
    let server = EmbeddedPostgres::find_running(dir.path()).await.expect("look for it").expect("it runs");
    let url = fs::read_to_string(dir.path().join(".taskbay/postgres/url")).expect("its address");
    assert_eq!(url.trim(), server.tcp_url());
    assert!(tokio_postgres::connect(server.tcp_url(), NoTls).await.is_ok());

    let mut guess: tokio_postgres::Config = server.tcp_url().parse().expect("an address");
    let refused = guess.password("guess").connect(NoTls).await.err().expect("a wrong password");
    assert!(refused.as_db_error().is_some_and(|error| error.message().contains("password")), "{refused:?}");

    for (file, mode) in [("socket", 0o700), ("data", 0o700), ("url", 0o600), ("server.json", 0o600)] {
        let path = dir.path().join(".taskbay/postgres").join(file);
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, mode, "{file}");
    }
    drop(server);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_number_that_was_left_behind_does_not_keep_the_server_from_starting() {
    let dir = project();
    host(dir.path()).await.stop().await;
    // This very process has the number, and is no server.
    let stale = format!("{}\n{}\n1\n5432\n\n\n", std::process::id(), dir.path().display());
    fs::write(dir.path().join(".taskbay/postgres/data/postmaster.pid"), stale).expect("leave a number behind");
    let next = host(dir.path()).await;
    assert_eq!(add(dir.path()), Ok("1".to_owned()));
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_version_are_left_alone() {
    let dir = project();
    host(dir.path()).await.stop().await;
    fs::write(dir.path().join(".taskbay/postgres/data/PG_VERSION"), "9\n").expect("pretend");
    let output = Taskbay::command("run").current_dir(dir.path()).arg("--embedded-postgres").output();
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.contains("were made by Postgres 9") && complaint.contains("install Postgres 9"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_too_long_for_a_socket_is_no_obstacle() {
    let dir = project();
    let deep = dir.path().join("a long, 'quoted' name ".repeat(6).trim());
    fs::create_dir_all(deep.join("tasks")).expect("a deep folder");
    let host = host(&deep).await;
    let server = EmbeddedPostgres::find_running(&deep).await.expect("look for it").expect("it runs");
    assert!(server.url().contains("%2Ftmp%2Ftaskbay-"), "{}", server.url());
    drop(server);
    assert_eq!(add(&deep), Ok("1".to_owned()));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_runs_it_as_oneself() {
    if !rustix::process::geteuid().is_root() {
        // Then all the other tests have shown it.
        return;
    }
    const NOBODY: u32 = 65534;
    let dir = project();
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("give it away");
    // The build's folder may be closed to others.
    let program: PathBuf = dir.path().join("taskbay");
    fs::copy(env!("CARGO_BIN_EXE_taskbay"), &program).expect("copy the program");
    let mut command = Command::new(&program);
    command.args(["run", "--embedded-postgres", "--schema-only"]).current_dir(dir.path()).uid(NOBODY).gid(NOBODY);
    command.env_clear().env("PATH", std::env::var("PATH").expect("PATH")).stdin(Stdio::null());
    let output = command.output().expect("run taskbay");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let data = fs::metadata(dir.path().join(".taskbay/postgres/data")).expect("the data");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&data), NOBODY);
    no_server(dir.path()).await;
}
