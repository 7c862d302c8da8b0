//! As the first process of a container, in a namespace of processes of its own.

use std::{ffi::OsStr, process::Command};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{
    plugins::{install, install_plugin, tasks_folder},
    postgres::TestDatabase,
    processes::{children_of, is_alive},
    program::{Running, Taskbay},
    wait::until,
};

const UNSHARE: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--kill-child"];

/// A host that is process 1.
struct Container {
    host: Running,
    database: TestDatabase,
    _tasks: TempDir,
}

impl Container {
    async fn start(scripts: &[(&str, &str)]) -> Self {
        let works = Command::new("unshare").args(UNSHARE).arg("true").output();
        assert!(
            works.as_ref().is_ok_and(|tried| tried.status.success()),
            "this test needs to make a namespace of processes, which takes `unshare` of util-linux and root: {works:?}"
        );
        let (database, tasks) = (TestDatabase::installed().await, tasks_folder());
        install_plugin(tasks.path(), "misbehaving");
        for (name, body) in scripts {
            install(tasks.path(), name, format!("#!/bin/sh\n{body}\n").as_bytes());
        }
        let unshare = UNSHARE.map(OsStr::new);
        let host = Taskbay::run(&database.url(), tasks.path()).below("unshare", &unshare).spawn();
        host.event("worker_ready", |_| true).await;
        Self { host, database, _tasks: tasks }
    }

    /// Process 1, as it is called out here.
    fn first(&self) -> u32 {
        let children = children_of(self.host.id());
        let [(first, _)] = children.as_slice() else { panic!("{children:?}") };
        *first
    }

    fn signal(&self, signal: Signal) {
        let first = Pid::from_raw(i32::try_from(self.first()).expect("a process id")).expect("a process id");
        kill_process(first, signal).expect("send a signal");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_by_signal_ends_with_128_and_the_signals_number() {
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut container = Container::start(&[]).await;
        container.signal(signal);
        assert_eq!(container.host.ended().await.code(), Some(status));
        assert_eq!(container.host.events("stopped").len(), 1, "it stopped in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_signal_stops_at_once_and_a_hangup_lists_the_folder() {
    let mut container = Container::start(&[("slow", "echo begun; exec sleep 1000")]).await;
    install(container._tasks.path(), "libbroken.so", b"nothing that can be loaded");
    container.host.event("file_rejected", |_| true).await;
    container.signal(Signal::HUP);
    container.host.nth_event(&["file_rejected"], 2).await;
    let id = container.database.add("slow", json!({})).await;
    container.host.event("job_output", |line| line["message"] == "begun").await;
    container.signal(Signal::TERM);
    container.host.event("stopping", |_| true).await;
    container.signal(Signal::TERM);
    assert_eq!(container.host.ended().await.code(), Some(143));
    assert_eq!(container.database.job(id).await.locked_by, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_scripts_leave_behind_is_reaped_and_their_own_ends_are_heard_of() {
    const RUNS: usize = 25;
    let orphans = "(sleep 0.01 &)\n(sh -c 'sleep 0.02 & exit 0' &)\nexit 7";
    let container = Container::start(&[("orphans", orphans)]).await;
    for _ in 0..RUNS {
        container.database.add("orphans", json!({})).await;
    }
    container.host.nth_event(&["job_failed"], RUNS).await;
    for failed in container.host.events("job_failed") {
        assert!(failed["message"].as_str().is_some_and(|text| text.contains("exited with code 7")), "{failed}");
    }
    let zombies = || children_of(container.first()).into_iter().filter(|(pid, _)| !is_alive(*pid)).count();
    until("all that have ended are reaped", async || match zombies() {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
    container.database.add("sleep", json!({ "ms": 0 })).await;
    container.host.event("job_done", |line| line["task"] == "sleep").await;
}
