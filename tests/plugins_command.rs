//! `taskbay plugins` says what running hosts have decided, and without one what a host that starts would decide.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    plugins::{build_labelled, install, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay},
};

struct Place {
    _database: TestDatabase,
    _home: TempDir,
    folder: PathBuf,
    host: Running,
}

impl Place {
    /// A host with these files.
    async fn new(files: &[(&str, &[u8])], settings: &str) -> Self {
        let (database, home) = (TestDatabase::installed().await, tasks_folder());
        let folder = home.path().join("tasks");
        fs::create_dir(&folder).expect("make a tasks folder");
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
        files.iter().for_each(|(name, bytes)| install(&folder, name, bytes));
        let host = Taskbay::run(&database.url(), &folder).settings(settings).spawn();
        host.event("worker_ready", |_| true).await;
        Self { _database: database, _home: home, folder, host }
    }

    fn line(&self, rest: &str) -> String {
        format!("host {}: {rest}", self.host.id())
    }
}

fn plugins(folder: &Path) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = Taskbay::command("plugins").arg(folder).output();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

/// The line of a file and those below it.
fn about<'a>(said: &'a str, file: &str) -> Vec<&'a str> {
    let mut lines = said.lines().skip_while(|line| !line.starts_with(file));
    let first = lines.next().unwrap_or_else(|| panic!("{file} is not in {said}"));
    std::iter::once(first).chain(lines.take_while(|line| line.starts_with("  "))).collect()
}

const TAKEN: &str = "which libz.so has already: rename the task in one of them, or remove one of the files";

#[tokio::test(flavor = "multi_thread")]
async fn of_two_files_with_one_task_that_goes_first_which_the_running_host_has_taken_first() {
    let place = Place::new(&[("libz.so", &build_labelled(1))], "").await;
    install(&place.folder, "liba.so", &build_labelled(2));
    place.host.event("file_rejected", |line| line["file"] == "liba.so").await;
    let (status, said, _) = plugins(&place.folder);
    assert_eq!(status, Some(1), "{said}");
    let [first, reason, host] = about(&said, "liba.so")[..] else { panic!("{said}") };
    assert!(first.ends_with("refused") && reason.contains(TAKEN), "{said}");
    assert_eq!(host.trim(), place.line("rejected the current file for this reason"));
    let of_z = about(&said, "libz.so");
    assert!(of_z[0].contains("ok: ") && of_z.last().unwrap().contains("serves this build"), "{said}");
    assert!(!said.contains("which liba.so has already"), "{said}");

    // Without it, the next one to start goes by the names.
    let folder = place.folder.clone();
    place.host.stop().await;
    let (status, said, _) = plugins(&folder);
    assert_eq!(status, Some(1), "{said}");
    assert!(about(&said, "liba.so")[0].contains("ok: "), "{said}");
    let of_z = about(&said, "libz.so");
    let reason = of_z[1];
    assert!(of_z[0].ends_with("refused") && reason.contains("which liba.so has already: rename the task"), "{said}");
    assert!(reason.contains("no running host has decided; one that starts goes by the files' names"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executable_behind_another_file_is_told_by_the_running_host() {
    let place = Place::new(&[("task.sh", b"#!/bin/sh\n")], "").await;
    install(&place.folder, "task", b"#!/bin/sh\nexit 0\n");
    place.host.event("task_shadowed", |_| true).await;
    let (status, said, _) = plugins(&place.folder);
    assert_eq!(status, Some(0), "{said}");
    let of_script = about(&said, "task.sh");
    let told = of_script.last().unwrap();
    assert!(told.contains("serves this build") && told.contains("gives it no jobs of task, because task goes first"));
    assert!(!said.contains("warning"), "{said}");
    place.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_of_a_folder_that_is_missing_or_unsafe_are_named_with_what_they_serve() {
    let files = [("libmisbehaving.so", build_labelled(1)), ("task.sh", b"#!/bin/sh\n".to_vec())];
    let place = Place::new(&files.each_ref().map(|(name, bytes)| (*name, bytes.as_slice())), "").await;
    let chmod = |mode| {
        fs::set_permissions(&place.folder, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("chmod");
    };
    let plugin = place.line("libmisbehaving.so: serves build ");
    chmod(0o777);
    let trouble = place.host.event("folder_unusable", |_| true).await;
    assert_eq!(trouble["serving"], 2, "both files are still there");
    let (status, said, error) = plugins(&place.folder);
    assert!(status == Some(1) && error.contains("is not safe: others may write to"), "{error}");
    assert!(
        said.contains(&plugin) && said.contains("; tasks: ") && said.contains(&place.line("task.sh: serves build "))
    );
    assert!(!said.contains("not safe"), "it is said once: {said}");

    chmod(0o755);
    place.host.event("folder_back", |_| true).await;
    let away = place.folder.with_file_name("away");
    fs::rename(&place.folder, &away).expect("move the folder away");
    let trouble = place.host.event("folder_missing", |_| true).await;
    assert_eq!(trouble["serving"], 1, "an executable runs from where it was");
    let (status, said, error) = plugins(&place.folder);
    assert!(status == Some(1) && error.contains("does not exist"), "{error}");
    assert!(said.contains(&plugin), "{said}");
    assert!(said.contains(&place.line("task.sh: waits for its file to serve build ")), "{said}");
    let output = Taskbay::command("plugins").arg(&place.folder).arg("--json").output();
    let reports: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&reports[0]["file"], &reports[0]["ok"]), (&json!("libmisbehaving.so"), &json!(false)));
    assert_eq!(reports[0]["hosts"][0]["serving"]["state"], "serving");
    assert_eq!(reports[1]["hosts"][0]["serving"]["state"], "waiting_for_file");
    place.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_the_file_shows_is_not_repeated_for_the_host() {
    let place = Place::new(&[("libmisbehaving.so", &build_labelled(1))], "").await;
    install(&place.folder, "libempty.so", b"text");
    place.host.event("file_rejected", |_| true).await;
    let (_, said, _) = plugins(&place.folder);
    assert_eq!(said.matches("is not a compiled library").count(), 1, "{said}");
    assert!(said.contains(&place.line("rejected the current file for this reason")), "{said}");
    place.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_a_kind_of_task_has_no_use_for_are_named() {
    let settings = "[plugins.default]\nroll_back = false\n\n[plugins.slow]\nisolation = \"in-process\"\ndatabase_url = false\n\
                    start_timeout = \"1s\"\nroll_back = true\ntimeout = \"1m\"\n[plugins.slow.settings]\na = 1\n\
                    [plugins.misbehaving]\nisolation = \"in-process\"\nmemory_limit = \"1GiB\"";
    let files = [("libmisbehaving.so", build_labelled(1)), ("slow.sh", b"#!/bin/sh\n".to_vec())];
    let place = Place::new(&files.each_ref().map(|(name, bytes)| (*name, bytes.as_slice())), settings).await;
    let executable = "has no effect, because slow is an executable";
    let expected = [
        format!("the setting isolation of slow (taskbay.toml, line 5, [plugins.slow]) {executable}"),
        format!("the setting database_url of slow (taskbay.toml, line 6, [plugins.slow]) {executable}"),
        format!("the setting start_timeout of slow (taskbay.toml, line 7, [plugins.slow]) {executable}"),
        format!("the setting roll_back of slow (taskbay.toml, line 8, [plugins.slow]) {executable}"),
        format!("the setting settings of slow (taskbay.toml, line 10, [plugins.slow]) {executable}"),
        "the setting memory_limit of misbehaving (taskbay.toml, line 14, [plugins.misbehaving]) has no effect, because \
         misbehaving runs in the host's own process"
            .to_owned(),
    ];
    let told: Vec<Value> =
        place.host.events("setting_without_effect").into_iter().map(|line| line["message"].clone()).collect();
    assert_eq!(told, expected);
    let output = Taskbay::command("plugins").arg(&place.folder).settings(settings).output();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for sentence in &expected {
        assert!(said.contains(&format!("  warning: {sentence}")), "{sentence} is not in {said}");
    }
    let check =
        |file: &str| Taskbay::command("check").arg(place.folder.join(file)).arg("--strict").settings(settings).output();
    assert_eq!(check("slow.sh").status.code(), Some(1));
    place.host.stop().await;
}
