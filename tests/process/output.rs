//! Output that nobody reads, or that has no room.

use std::{
    fs::{File, OpenOptions},
    io::{PipeReader, Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    plugins::{install, install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
    wait::until,
};

/// A host whose log goes where the test wants.
struct Host {
    child: Child,
    _home: TempDir,
    _tasks: TempDir,
}

impl Host {
    fn start(database: &TestDatabase, log: impl Into<std::process::Stdio>) -> Self {
        let tasks = tasks_folder();
        install_plugin(tasks.path(), "misbehaving");
        install(tasks.path(), "lines", b"#!/bin/sh\nexec seq 10000\n");
        let (child, home) = Taskbay::run(&database.url(), tasks.path()).spawn_with_log(log);
        Self { child, _home: home, _tasks: tasks }
    }

    async fn stop(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")).expect("a process id");
        kill_process(pid, Signal::TERM).expect("send a signal");
        until("the host stops", async || self.child.try_wait().expect("wait for taskbay").ok_or("it runs")).await
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// More jobs than the host has threads, some after others.
async fn works_jobs(database: &TestDatabase) {
    for round in 0..5 {
        for n in 0..20 {
            database.add("sleep", json!({ "ms": n % 3, "round": round })).await;
        }
        database.wait_until_no_jobs().await;
    }
}

/// Reads lines until one has this event.
fn read_until(reader: &mut PipeReader, event: &str) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    let mut byte = [0];
    loop {
        assert_eq!(reader.read(&mut byte).expect("read the log"), 1, "the log ended before {event}: {lines:?}");
        if byte[0] != b'\n' {
            line.push(byte[0]);
            continue;
        }
        lines.push(String::from_utf8(std::mem::take(&mut line)).expect("the log is text"));
        if lines.last().is_some_and(|line| line.contains(&format!("\"event\":\"{event}\""))) {
            return lines;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_closed_by_its_reader_stops_no_job() {
    let database = TestDatabase::installed().await;
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut host = Host::start(&database, writer);
    tokio::task::spawn_blocking(move || read_until(&mut reader, "worker_ready")).await.expect("it is ready");
    works_jobs(&database).await;
    assert_eq!(host.stop().await.signal(), Some(Signal::TERM.as_raw()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_stops_no_job() {
    let database = TestDatabase::installed().await;
    let full = OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
    let mut host = Host::start(&database, full);
    works_jobs(&database).await;
    assert_eq!(host.stop().await.signal(), Some(Signal::TERM.as_raw()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_has_stalled_stops_no_job() {
    let database = TestDatabase::installed().await;
    let (_reader, mut writer) = std::io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("let it not block");
    while writer.write(b"full\n").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("let it block");
    let mut host = Host::start(&database, writer);
    works_jobs(&database).await;
    assert_eq!(host.stop().await.signal(), Some(Signal::TERM.as_raw()));
}

/// Some programs leave a pipe behind that does not block.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_log_has_room_again_one_line_says_how_many_were_lost() {
    let database = TestDatabase::installed().await;
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("let it not block");
    while writer.write(b"full\n").is_ok() {}
    let mut host = Host::start(&database, writer);
    works_jobs(&database).await;
    // More lines than wait for their reader.
    database.add("lines", json!({})).await;
    database.wait_until_no_jobs().await;
    let reading = tokio::task::spawn_blocking(move || read_until(&mut reader, "log_lines_lost"));
    // Each of them logs something.
    while !reading.is_finished() {
        database.add("sleep", json!({ "ms": 0 })).await;
        database.wait_until_no_jobs().await;
    }
    let lines = reading.await.expect("it says so");
    let said: Value = serde_json::from_str(lines.last().expect("a line")).expect("a whole line of JSON");
    assert!(said["lost"].as_u64().is_some_and(|lost| lost > 100), "{said}");
    assert_eq!(host.stop().await.signal(), Some(Signal::TERM.as_raw()));
}

fn jobs(database: &TestDatabase, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskbay"));
    command.arg("jobs").args(args).env("DATABASE_URL", database.url());
    command
}

fn full_disk() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("a full disk")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_result_nobody_reads_ends_quietly() {
    let database = TestDatabase::installed().await;
    for n in 0..40 {
        database.add("echo", json!({ "n": n })).await;
    }
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ended = jobs(&database, &["list"]).stdout(writer).output().expect("run taskbay");
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_write_its_result_says_so_and_fails() {
    let database = TestDatabase::installed().await;
    database.add("echo", json!({})).await;
    let ended = jobs(&database, &["list"]).stdout(full_disk()).output().expect("run taskbay");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(1) && said.contains("standard output"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_errors_cannot_be_written_keeps_its_exit_status() {
    let database = TestDatabase::installed().await;
    let (reader, closed) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ended = jobs(&database, &["show", "999"]).stderr(closed).status().expect("run taskbay");
    assert_eq!(ended.code(), Some(1), "nothing was found");
    let ended = jobs(&database, &["complete", "999"]).stderr(full_disk()).status().expect("run taskbay");
    assert!(ended.code().is_some_and(|code| code < 2), "{ended:?}");
    let ended = jobs(&database, &["frobnicate"]).stderr(full_disk()).status().expect("run taskbay");
    assert_eq!(ended.code(), Some(2), "it was called wrongly");
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskbay"));
    command.args(["run", "--no-wait", "--once", "-c", "postgres://localhost:1/nowhere"]).stderr(full_disk());
    assert_eq!(command.status().expect("run taskbay").code(), Some(1), "there is no database");
}
