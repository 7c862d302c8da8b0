//! What the host tells a service manager such as systemd, over a socket as systemd has one.

use std::{fs, os::unix::net::UnixDatagram, path::PathBuf, sync::mpsc, thread, time::Duration};

use serde_json::json;
use taskbay::{
    migrate,
    queue::{Database, DatabaseSettings},
};

use crate::harness::{
    cluster::{Cluster, End},
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{DEADLINE, Taskbay},
};

/// Reads what it is told, as it is told it.
struct Manager {
    folder: tempfile::TempDir,
    told: mpsc::Receiver<String>,
}

impl Manager {
    fn new() -> Self {
        let (folder, socket) = socket();
        let (sender, told) = mpsc::channel();
        thread::spawn(move || {
            let mut message = [0; 256];
            while let Ok(length) = socket.recv(&mut message) {
                let message = String::from_utf8_lossy(&message[..length]).trim_end().to_owned();
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Self { folder, told }
    }

    /// The next thing that it hears.
    fn hears(&self) -> String {
        self.told.recv_timeout(DEADLINE).expect("the host says something in time")
    }

    /// Forgets what it was told so far.
    fn forget(&self) {
        while self.told.try_recv().is_ok() {}
    }

    fn hears_within(&self, limit: Duration) -> bool {
        self.told.recv_timeout(limit).is_ok()
    }

    /// After the end of the host.
    fn hears_nothing_more(&self) -> bool {
        let test = UnixDatagram::unbound().expect("a socket");
        test.send_to(b"the test", path(&self.folder)).expect("say something");
        self.hears() == "the test"
    }
}

fn socket() -> (tempfile::TempDir, UnixDatagram) {
    let folder = tempfile::tempdir().expect("a folder for the socket");
    let socket = UnixDatagram::bind(path(&folder)).expect("a socket");
    (folder, socket)
}

fn path(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("notify")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_hears_when_the_host_is_ready_and_when_it_stops() {
    let (database, folder, manager) = (TestDatabase::installed().await, tasks_folder(), Manager::new());
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path()).env("NOTIFY_SOCKET", path(&manager.folder)).spawn();
    assert_eq!(manager.hears(), "READY=1");
    host.event("worker_ready", |_| true).await;
    host.stop().await;
    assert_eq!(manager.hears(), "STOPPING=1");
    assert!(manager.hears_nothing_more(), "nobody asked for a pulse");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_hears_again_and_again_that_the_host_lives_where_it_asks_for_that() {
    let (database, folder, manager) = (TestDatabase::installed().await, tasks_folder(), Manager::new());
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path())
        .env("NOTIFY_SOCKET", path(&manager.folder))
        .env("WATCHDOG_USEC", Duration::from_millis(200).as_micros().to_string())
        .spawn();
    let mut heard = [manager.hears(), manager.hears(), manager.hears(), manager.hears()];
    heard.sort();
    assert_eq!(heard, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]);
    host.stop().await;
}

/// Its socket takes a few messages that nobody reads, and then whoever sends one waits.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_read_holds_up_no_job() {
    let (database, folder, (home, _socket)) = (TestDatabase::installed().await, tasks_folder(), socket());
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path())
        .env("NOTIFY_SOCKET", path(&home))
        .env("WATCHDOG_USEC", Duration::from_millis(10).as_micros().to_string())
        .spawn();
    // Each of them takes longer than a beat.
    for _ in 0..200 {
        database.add_to_queue("sleep", json!({ "ms": 10 }), "one after the other").await;
    }
    database.wait_until_no_jobs().await;
    host.stop().await;
}

/// Where tests of a debug build say which part of a host is to fail, and how.
const FAULTS: &str = "FAULT_FILE_OF_TASKBAYS_TESTS";

/// Parts whose loops have to come round, and one whose task only has to run.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn it_hears_nothing_while_a_part_of_the_host_stands_still() {
    let (database, folder, manager) = (TestDatabase::installed().await, tasks_folder(), Manager::new());
    install_plugin(folder.path(), "misbehaving");
    let faults = manager.folder.path().join("faults");
    let host = Taskbay::run(&database.url(), folder.path())
        .env("NOTIFY_SOCKET", path(&manager.folder))
        .env("WATCHDOG_USEC", Duration::from_millis(500).as_micros().to_string())
        .env(FAULTS, &faults)
        .spawn();
    // All loops have come round.
    host.event("listening", |_| true).await;
    database.add("sleep", json!({ "ms": 0 })).await;
    database.wait_until_no_jobs().await;
    for (round, part) in (1..).zip(["claimer", "tasks folder", "liveness lock"]) {
        fs::write(&faults, format!("stop {part}")).expect("ask for a fault");
        let stuck = host.nth_event(&["parts_stuck"], round).await;
        assert!(stuck["parts"].as_str().is_some_and(|parts| parts.starts_with(part)), "{stuck}");
        manager.forget();
        assert!(!manager.hears_within(Duration::from_secs(3)), "the {part} stands still");
        fs::remove_file(&faults).expect("end the fault");
        assert_eq!(manager.hears(), "WATCHDOG=1");
        host.nth_event(&["parts_move_again"], round).await;
    }
    host.stop().await;
}

/// A database that is away is no reason to start the host again.
#[tokio::test(flavor = "multi_thread")]
async fn it_hears_that_the_host_lives_while_the_database_is_away() {
    let cluster = Cluster::start(&[]).await;
    migrate::prepare(
        &Database::new(DatabaseSettings::new(cluster.config("jobs", cluster.port()), "graphile_worker"))
            .expect("a database"),
    )
    .await
    .expect("install the schema");
    let (folder, manager) = (tasks_folder(), Manager::new());
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&cluster.url(), folder.path())
        .env("NOTIFY_SOCKET", path(&manager.folder))
        .env("WATCHDOG_USEC", Duration::from_secs(1).as_micros().to_string())
        .spawn();
    host.event("listening", |_| true).await;
    cluster.end(End::Immediate).await;
    // After half a minute, which is longer than a part may stand still, it is said again.
    let first = host.event("database_trouble", |line| line["level"] == "WARN").await;
    let goes_on = host.event("database_trouble_goes_on", |_| true).await;
    assert!(goes_on["lasted_s"].as_u64().is_some_and(|lasted| lasted >= 30), "{first} {goes_on}");
    let said = goes_on["message"].as_str().expect("a message");
    assert!(said.starts_with("still cannot") && said.contains("since 20"), "{said}");
    assert_eq!(host.events("database_trouble_goes_on").len(), 1, "one outage, one reminder");
    assert_eq!(host.events("parts_stuck").len(), 0);
    manager.forget();
    assert_eq!(manager.hears(), "WATCHDOG=1");
    cluster.start_again().await;
    let back = host.event("database_back", |_| true).await;
    assert!(back["message"].as_str().is_some_and(|said| said.contains("again, after")), "{back}");
    host.stop().await;
}
