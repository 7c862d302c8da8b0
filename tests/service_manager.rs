//! What the host tells a service manager such as systemd, over a socket as systemd has one.

use std::{os::unix::net::UnixDatagram, time::Duration};

use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{DEADLINE, Taskbay},
};

struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the socket");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        Self { socket, folder }
    }

    /// The next thing that it hears.
    fn hears(&self) -> String {
        let mut message = [0; 256];
        let length = self.socket.recv(&mut message).expect("the host says something in time");
        String::from_utf8_lossy(&message[..length]).trim_end().to_owned()
    }

    fn hears_nothing_more(&self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket");
        self.socket.recv(&mut [0; 256]).is_err()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_hears_when_the_host_is_ready_and_when_it_stops() {
    let (database, folder, manager) = (TestDatabase::installed().await, tasks_folder(), Manager::new());
    install_plugin(folder.path(), "misbehaving");
    let host =
        Taskbay::run(&database.url(), folder.path()).env("NOTIFY_SOCKET", manager.folder.path().join("notify")).spawn();
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
        .env("NOTIFY_SOCKET", manager.folder.path().join("notify"))
        .env("WATCHDOG_USEC", Duration::from_millis(200).as_micros().to_string())
        .spawn();
    let mut heard = [manager.hears(), manager.hears(), manager.hears(), manager.hears()];
    heard.sort();
    assert_eq!(heard, ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]);
    host.stop().await;
}
