//! `taskbay dev`: from a saved source file to the job that runs it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

use tempfile::TempDir;

use crate::harness::program::{Running, Taskbay};

const MANIFEST: &str = r#"
[package]
name = "NAME"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[dependencies]
taskbay-plugin = { path = "PLUGIN_API" }
"#;

const SOURCE: &str = r#"
use taskbay_plugin::prelude::*;

#[task]
async fn greet(name: String) -> TaskResult {
    info!("{} {name}", include_str!("../greeting.txt"));
    Ok(())
}

plugin!(greet);
"#;

/// A crate outside of the repository, as a user has it, with the locked versions of the workspace. No two tests have one of the same
/// name, because they build into one target folder.
fn project(name: &str) -> TempDir {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace");
    let dir = tempfile::tempdir().expect("a folder");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("open it to the server's user");
    let plugin_api = workspace.join("plugin-api").display().to_string();
    for (file, text) in [
        ("Cargo.toml", MANIFEST.replace("PLUGIN_API", &plugin_api).replace("NAME", name)),
        ("greeting.txt", "Hello".to_owned()),
    ] {
        save(&dir, file, &text);
    }
    fs::create_dir(dir.path().join("src")).expect("create src");
    save(&dir, "src/lib.rs", SOURCE);
    fs::copy(workspace.join("Cargo.lock"), dir.path().join("Cargo.lock")).expect("copy Cargo.lock");
    static DEPENDENCIES: Once = Once::new();
    DEPENDENCIES.call_once(|| {
        // Before there is anything to wait for: on a slow machine this takes minutes.
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet"]).current_dir(dir.path()).env("CARGO_TARGET_DIR", target());
        assert!(cargo.status().expect("run cargo").success(), "the dependencies cannot be built");
    });
    dir
}

/// One target folder for all runs, so that the dependencies are compiled once.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside")
}

fn save(dir: &TempDir, file: &str, text: &str) {
    fs::write(dir.path().join(file), text).expect("save a file");
}

#[track_caller]
fn greet(dir: &TempDir) {
    let output = Taskbay::command("add").args(["greet", "\"Ada\""]).current_dir(dir.path()).output();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until a job has logged a line.
async fn said(dev: &Running, line: &str) {
    dev.line(|written| written["message"] == line).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_becomes_the_next_job_and_what_does_not_compile_changes_nothing() {
    let dir = project("greeter");
    let dev = Taskbay::command("dev")
        .args(["--log-format=json", "--log-level=debug"])
        .current_dir(dir.path())
        .env("CARGO_TARGET_DIR", target())
        .spawn();
    // The plugin may be there before the database is.
    dev.event("plugin_loaded", |_| true).await;
    dev.event("worker_ready", |_| true).await;
    greet(&dir);
    said(&dev, "Hello Ada").await;

    save(&dir, "src/lib.rs", &SOURCE.replace("{} {name}", "{}, {name}!"));
    dev.event("plugin_loaded", |line| !line["replaced"].is_null()).await;
    greet(&dir);
    said(&dev, "Hello, Ada!").await;

    save(&dir, "src/lib.rs", "this is not Rust");
    dev.event("build_failed", |_| true).await;
    greet(&dir);
    dev.nth_event(&["job_done"], 3).await;
    assert!(dev.lines().iter().any(|line| line.as_str().is_some_and(|text| text.contains("error: expected"))));

    save(&dir, "src/lib.rs", SOURCE);
    dev.nth_event(&["plugin_loaded"], 3).await;
    // A file that is only included is a source, too.
    save(&dir, "greeting.txt", "Good morning");
    dev.nth_event(&["plugin_loaded"], 4).await;
    greet(&dir);
    said(&dev, "Good morning Ada").await;
    dev.stop().await;
}

/// With the log as it is without options, which is for the author of a task.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_the_author_what_is_of_use_from_the_first_build_to_the_end() {
    let dir = project("welcomer");
    save(&dir, "src/lib.rs", "this is not Rust");
    let dev =
        Taskbay::command("dev").arg("--log-format=json").current_dir(dir.path()).env("CARGO_TARGET_DIR", target());
    let dev = dev.spawn();
    dev.event("dev_building", |line| line["message"].to_string().contains("building welcomer")).await;
    // `add` waits for the start of the database, which was announced with it.
    dev.event("dev_ready", |line| line["message"].to_string().contains("taskbay add TASK")).await;
    dev.event("worker_ready", |_| true).await;
    let first = dev.event("build_failed", |_| true).await["message"].to_string();
    assert!(!first.contains("was built before") && first.contains("first build that succeeds"), "{first}");

    save(&dir, "src/lib.rs", SOURCE);
    dev.event("plugin_loaded", |_| true).await;
    greet(&dir);
    dev.event("job_done", |_| true).await;
    save(&dir, "src/lib.rs", "this is not Rust");
    let second = dev.nth_event(&["build_failed"], 2).await["message"].to_string();
    assert!(second.contains("what was built before goes on"), "{second}");

    dev.signal(rustix::process::Signal::TERM);
    dev.event("embedded_postgres_stopped", |line| line["message"].to_string().contains("its data are kept")).await;
    assert!(dev.events("no_tasks").is_empty(), "nobody has to put a plugin into a folder that is built into");
    let debug: Vec<_> = dev.lines().into_iter().filter(|line| line["level"] == "DEBUG").collect();
    let about_jobs = |line: &serde_json::Value| line["event"].as_str().is_some_and(|event| event.starts_with("job_"));
    assert!(debug.iter().all(about_jobs) && !debug.is_empty(), "{debug:?}");
    drop(dev);

    for command in [&["jobs", "list"][..], &["add", "greet"], &["migrate"], &["run", "--no-wait"]] {
        let below = dir.path().join("src");
        let output = Taskbay::command(command[0]).args(&command[1..]).current_dir(&below).output();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let folder = dir.path().canonicalize().expect("it exists");
        assert!(said.contains(&format!("the private Postgres of {} is stopped", folder.display())), "{said}");
        assert!(said.contains("`taskbay dev` in that folder starts it"), "{said}");
    }
}

#[test]
fn a_folder_without_plugin_crates_is_answered_with_how_to_make_one() {
    let output = Taskbay::command("dev").output();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("there is no plugin crate in") && said.contains("crate-type = [\"cdylib\"]"), "{said}");
}
