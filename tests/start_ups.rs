//! A plugin whose start-up fails because something is away is tried again, keeps no other from working, and is told of by
//! `taskbay plugins` as the running host has it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    ledger::Ledger,
    plugins::{build_labelled, build_that, file_name, install, tasks_folder},
    postgres::TestDatabase,
    processes::wait_until_gone,
    program::{DEADLINE, Running, Taskbay},
};

const FILE: &str = "libmisbehaving.so";

/// A tasks folder whose plugin `misbehaving` starts only while a file is there.
struct Place {
    database: TestDatabase,
    folder: TempDir,
    needed: PathBuf,
    _home: TempDir,
    ledger: Ledger,
}

impl Place {
    async fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let needed = home.path().join("needed");
        let (database, folder, ledger) = (TestDatabase::installed().await, tasks_folder(), Ledger::new());
        Self { database, folder, needed, _home: home, ledger }
    }

    fn run(&self) -> Taskbay {
        Taskbay::run(&self.database.url(), self.folder.path())
            .ledger(&self.ledger)
            .settings(&format!("needs = {:?}", self.needed))
    }

    fn install(&self, label: u32) {
        install(self.folder.path(), FILE, &build_labelled(label));
    }

    fn bring(&self) {
        fs::write(&self.needed, "").expect("make the file");
    }

    fn take_away(&self) {
        fs::remove_file(&self.needed).expect("remove the file");
    }

    /// Runs a job, which must run on the build with this label.
    async fn works_on(&self, label: u32, host: &Running) {
        let id = self.database.add("echo", json!({})).await;
        host.event("job_done", |line| line["job"] == id).await;
        assert_eq!(self.ledger.entries().last().expect("it ran").label, format!("{label:010}"));
    }
}

fn plugins(folder: &Path) -> Output {
    Taskbay::command("plugins").arg(folder).output()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn is_tried_again(arguments: &[&str]) {
    let place = Place::new().await;
    place.bring();
    place.install(1);
    let host = place.run().args(arguments).spawn();
    place.works_on(1, &host).await;

    place.take_away();
    place.install(2);
    let refused = host.event("file_rejected", |_| true).await;
    let said = refused["message"].as_str().expect("a message");
    assert!(
        said.contains("cannot reach") && said.contains("keeps serving") && said.ends_with("next try in 1s"),
        "{said}"
    );
    assert_eq!(refused["retry_in"], "1s");
    host.nth_event(&["file_still_rejected"], 2).await;
    place.works_on(1, &host).await;

    // The file is as good as any; only the host knows that it does not start.
    let output = plugins(place.folder.path());
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let line = said.lines().find(|line| line.starts_with(&format!("  host {}: serves build ", host.id())));
    let line = line.unwrap_or_else(|| panic!("the host is not in {said}"));
    assert!(line.contains("rejected the current file: its start-up failed: cannot reach"), "{said}");
    assert!(line.contains("next try in ") || line.contains("is starting a build"), "{said}");

    place.bring();
    host.event("plugin_loaded", |line| line["replaced"].is_string()).await;
    place.works_on(2, &host).await;
    let output = plugins(place.folder.path());
    let said = stdout(&output);
    assert!(output.status.success() && said.contains(&format!("  host {}: serves this build, ", host.id())), "{said}");
    assert_eq!(host.events("file_rejected").len(), 1, "it is told once");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_start_up_failed_is_tried_again_while_the_one_before_serves() {
    is_tried_again(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_start_up_failed_in_process_is_tried_again() {
    is_tried_again(&["--in-process"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_boot_a_plugin_that_does_not_start_keeps_no_other_from_working() {
    let place = Place::new().await;
    place.install(1);
    install(place.folder.path(), "other.sh", b"#!/bin/sh\n");
    let host = place.run().spawn();
    let id = place.database.add("other", json!({})).await;
    host.event("job_done", |line| line["job"] == id).await;
    let waiting = place.database.add("echo", json!({})).await;
    host.event("file_still_rejected", |_| true).await;
    place.bring();
    host.event("job_done", |line| line["job"] == waiting).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn once_works_what_it_can_and_names_the_plugin_that_did_not_start() {
    let place = Place::new().await;
    place.install(1);
    install(place.folder.path(), "other.sh", b"#!/bin/sh\n");
    place.database.add("other", json!({})).await;
    place.database.add("echo", json!({})).await;
    let output = place.run().arg("--once").output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("misbehaving did not start, see above, so its jobs were not run"), "{said}");
    assert_eq!(place.database.only_job().await.task, "echo");
}

/// A start-up that fails after a crash is no crash, and five of them no reason to give the plugin up.
#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_process_that_does_not_come_up_for_a_while_is_not_given_up() {
    let place = Place::new().await;
    place.bring();
    place.install(1);
    let host = place.run().spawn();
    place.works_on(1, &host).await;
    place.take_away();
    place.database.add("segfault", json!({})).await;
    let failed = |line: &Value| line["message"].as_str().is_some_and(|said| said.contains("did not come up again"));
    for nth in 2..=7 {
        assert!(failed(&host.nth_event(&["plugin_crashed", "plugin_quarantined"], nth).await));
    }
    assert_eq!(host.events("plugin_quarantined").len(), 0);
    place.bring();
    host.event("plugin_restarted", |_| true).await;
    place.works_on(1, &host).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_file_that_is_put_back_is_told() {
    let place = Place::new().await;
    place.bring();
    place.install(1);
    let host = place.run().spawn();
    place.works_on(1, &host).await;
    for (nth, bad) in [(1, b"no plugin".to_vec()), (2, build_that("start-fail"))] {
        install(place.folder.path(), FILE, &bad);
        host.nth_event(&["file_rejected"], nth).await;
        place.install(1);
        let said = host.nth_event(&["file_restored"], nth).await;
        assert!(said["message"].as_str().unwrap().contains("is back to build"), "{said}");
        let output = plugins(place.folder.path());
        assert!(output.status.success(), "{}", stdout(&output));
    }
    assert_eq!(host.events("plugin_loaded").len(), 1, "it has been serving all along");
    host.stop().await;
}

/// What is wrong for good does not get better by waiting.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_fit_are_told_with_their_place_and_end_the_start() {
    let place = Place::new().await;
    place.install(1);
    for (settings, parts) in [
        (
            "[plugins.misbehaving.settings]\necho_fil = \"x\"",
            &["unknown field `echo_fil`", "did you mean echo_file?", "taskbay.toml, line 1, [plugins.misbehaving]"][..],
        ),
        (
            "[plugins.misbehaving]\nsettings = { echo_file = 1 }",
            &["`echo_file`: invalid type", "taskbay.toml, line 2, [plugins.misbehaving]"],
        ),
        ("[plugins.default]\nuser = \"no-such-user\"", &["no such user", "taskbay.toml, line 2, [plugins.default]"]),
        ("[plugins.misbehaving]\nmemory_limit = \"64KiB\"", &["memory_limit", "line 2, [plugins.misbehaving]"]),
    ] {
        let output = Taskbay::run(&place.database.url(), place.folder.path()).settings(settings).output();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in parts {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
        assert!(!said.contains("next try in"), "{said}");
    }
    let output =
        Taskbay::run(&place.database.url(), place.folder.path()).env("TASKBAY_PLUGIN_USER", "no-such-user").output();
    assert!(String::from_utf8_lossy(&output.stderr).contains("(see TASKBAY_PLUGIN_USER)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_limit_that_is_too_small_to_start_is_the_reason_that_is_given() {
    let place = Place::new().await;
    place.install(1);
    let mut too_small = 0;
    for kib in [0, 64, 256, 1 << 10, 2 << 10, 4 << 10, 6 << 10, 8 << 10, 12 << 10, 16 << 10, 512 << 10] {
        let limit = format!("[plugins.misbehaving]\nmemory_limit = \"{kib}KiB\"");
        let output = Taskbay::run(&place.database.url(), place.folder.path()).arg("--once").settings(&limit).output();
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            too_small += 1;
            let reason = format!("its memory_limit of {} bytes is too small to start it", kib << 10);
            assert!(said.contains(&reason), "{kib} KiB: {said}");
            assert!(said.contains("taskbay.toml, line 2, [plugins.misbehaving]"), "{kib} KiB: {said}");
        }
    }
    assert!((3..11).contains(&too_small), "{too_small} of the limits are too small");
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_tells_of_living_hosts_of_this_folder_alone() {
    let place = Place::new().await;
    place.bring();
    place.install(1);
    let none = "No running host was found that has this folder open.";
    assert!(stdout(&plugins(place.folder.path())).contains(none));

    let hosts = [place.run().spawn(), place.run().spawn()];
    for host in &hosts {
        host.event("worker_ready", |_| true).await;
    }
    // By another name, too.
    let link = place.needed.with_file_name("link");
    std::os::unix::fs::symlink(place.folder.path(), &link).expect("make a link");
    let json = Taskbay::command("plugins").arg(&link).arg("--json").output();
    let reports: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let mut told: Vec<u64> = reports[0]["hosts"]
        .as_array()
        .expect("a list")
        .iter()
        .inspect(|host| {
            assert_eq!(
                (&host["serving"]["state"], &host["serving"]["build"]),
                (&json!("serving"), &reports[0]["build"])
            )
        })
        .map(|host| host["process"].as_u64().expect("a number"))
        .collect();
    told.sort_unstable();
    let mut expected = hosts.each_ref().map(|host| u64::from(host.id()));
    expected.sort_unstable();
    assert_eq!(told, expected);

    let other = tasks_folder();
    assert!(stdout(&plugins(other.path())).contains(none));
    if rustix::process::geteuid().is_root() {
        // Somebody else is told nothing.
        let asked = Taskbay::command("plugins").arg(place.folder.path());
        fs::set_permissions(asked.home(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("open it");
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"].map(std::ffi::OsStr::new);
        let output = asked.below("setpriv", &nobody).output();
        let said = format!("{}{}", stdout(&output), String::from_utf8_lossy(&output.stderr));
        assert!(said.contains(none), "{said}");
    }
    for host in hosts {
        host.signal(Signal::KILL);
        wait_until_gone(host.id()).await;
    }
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !stdout(&plugins(place.folder.path())).contains(none) {
        assert!(tokio::time::Instant::now() < deadline, "dead hosts are told of");
    }
}

/// Settings for a plugin that there is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_section_that_no_plugin_has_is_told_everywhere() {
    let place = Place::new().await;
    place.install(1);
    let settings = "[plugins.default]\ntimeout = \"1m\"\n\n[plugins.misbehavin]\ntimeout = \"1s\"";
    let said = "there is no plugin misbehavin in the tasks folder, so its settings (taskbay.toml, line 4, \
                [plugins.misbehavin]) have no effect; did you mean misbehaving?";

    let host = Taskbay::run(&place.database.url(), place.folder.path()).settings(settings).spawn();
    let line = host.event("unknown_plugin_section", |_| true).await;
    assert_eq!((line["level"].as_str(), line["message"].as_str()), (Some("WARN"), Some(said)));
    host.stop().await;

    let file = place.folder.path().join(file_name("misbehaving"));
    let of = |command: &str, path: &Path| Taskbay::command(command).arg(path).settings(settings);
    let result = |call: Taskbay| {
        let output = call.output();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (call, status, level) in [
        (of("config", place.folder.path()), 1, "error"),
        (of("check", &file).arg("--strict"), 1, "error"),
        (of("plugins", place.folder.path()), 0, "warning"),
    ] {
        let (code, stderr) = result(call);
        assert_eq!(code, Some(status), "{stderr}");
        assert!(stderr.contains(&format!("{level}: {said}")), "{stderr}");
    }
    assert_eq!(result(of("check", &file)).0, Some(0));
    // Nothing is known where there is no folder.
    assert_eq!(result(of("config", &place.folder.path().join("none"))).0, Some(0));
    let right =
        Taskbay::command("check").arg(&file).arg("--strict").settings("[plugins.misbehaving]\ntimeout = \"1s\"");
    assert_eq!(result(right).0, Some(0));
}
