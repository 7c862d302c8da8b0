//! The example programs, as their readers would run them.

use std::{
    io::{BufRead, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::OnceLock,
};

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::harness::plugins::{install_plugin, tasks_folder};

/// `host/examples/NAME.rs`, compiled, for a database.
fn program(name: &str, database: &TestDatabase) -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(BUILT.get_or_init(build_all).join(name));
    command.env("DATABASE_URL", database.url());
    command
}

/// As the plugins of the tests are built.
fn build_all() -> PathBuf {
    let profile = Path::new(env!("CARGO_BIN_EXE_taskbay")).parent().expect("the program is in a target folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "taskbay", "--examples"]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.arg("--target-dir").arg(profile.parent().expect("the profile's folder is in a target folder"));
    assert!(cargo.status().expect("run cargo").success(), "the examples do not build");
    profile.join("examples")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_programs_do_what_they_show() {
    for (name, expected) in [
        ("own_tasks", &["sending to ada@example.com", "no-address is no address", "worked all jobs"][..]),
        ("in_a_transaction", &["welcome, ada: 1 account"]),
        ("own_log_and_events", &["job:start of hello", "job:complete of hello", "log: INFO ready for jobs"]),
    ] {
        let database = TestDatabase::installed().await;
        let Output { status, stdout, stderr } = program(name, &database).output().expect("run an example");
        let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{name}: {said}");
        for part in expected {
            assert!(said.contains(part), "{name} does not say {part:?}: {said}");
        }
    }
}

/// Ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads the program's output until this line.
fn wait_for(line: &str, output: &mut Lines<BufReader<ChildStdout>>) {
    let found = output.map_while(Result::ok).any(|said| said == line);
    assert!(found, "the program ended without saying {line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_program_runs_plugins_in_itself_and_stops_at_a_signal() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "typed-plugin");
    let mut command = program("until_stopped", &database);
    let mut child = Killed(command.arg(folder.path()).stdout(Stdio::piped()).spawn().expect("run an example"));
    let mut output = BufReader::new(child.0.stdout.take().expect("it is piped")).lines();
    wait_for("working", &mut output);
    database.add("greet", json!({"to": "Ada", "times": 1})).await;
    database.add("hello", json!("Bob")).await;
    wait_for("hello, Bob", &mut output);
    database.wait_until_no_jobs().await;
    let pid = Pid::from_raw(i32::try_from(child.0.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    wait_for("stopped", &mut output);
    assert!(child.0.wait().unwrap().success(), "a signal stops the host; the program ends by itself");
}
