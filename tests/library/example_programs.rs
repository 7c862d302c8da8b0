//! The example programs, as their readers would run them.

use std::process::{Command, Output};

use super::*;

/// Builds and runs `host/examples/NAME.rs` against a database.
fn run(name: &str, database: &TestDatabase) -> Output {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--package", "taskbay", "--example", name]);
    if std::path::Path::new(env!("CARGO_BIN_EXE_taskbay")).parent().is_some_and(|folder| folder.ends_with("release")) {
        cargo.arg("--release");
    }
    cargo.env("DATABASE_URL", database.url()).output().expect("run cargo")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_programs_do_what_they_show() {
    for (name, expected) in [
        ("own_tasks", &["sending to ada@example.com", "no-address is no address", "worked all jobs"][..]),
        ("in_a_transaction", &["welcome, ada", "1 account"]),
        ("own_log_and_events", &["job:start of hello", "job:complete of hello", "log: INFO ready for jobs"]),
    ] {
        let database = TestDatabase::installed().await;
        let output = run(name, &database);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {said}");
        for part in expected {
            assert!(said.contains(part), "{name} does not say {part:?}: {said}");
        }
    }
}
