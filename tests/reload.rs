//! SIGHUP has the settings file read again: what can change does, the rest is named, and what cannot be used changes nothing.

use std::{fs, path::PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    ledger::Ledger,
    plugins::{build_labelled, install, install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay},
    wait::until,
};

struct Place {
    database: TestDatabase,
    folder: tempfile::TempDir,
    host: Running,
    file: PathBuf,
}

impl Place {
    async fn new(settings: &str) -> Self {
        let (database, folder) = (TestDatabase::installed().await, tasks_folder());
        install(folder.path(), "libmisbehaving.so", &build_labelled(1));
        let call = Taskbay::run(&database.url(), folder.path()).settings(settings);
        let file = call.home().join("taskbay.toml");
        let host = call.spawn();
        host.event("worker_ready", |_| true).await;
        Self { database, folder, host, file }
    }

    fn write(&self, settings: &str) {
        fs::write(&self.file, settings).expect("write taskbay.toml");
    }

    /// Has the nth answer to it.
    async fn hang_up(&self, nth: usize) -> Value {
        self.host.signal(Signal::HUP);
        self.host.nth_event(&["settings_reloaded", "settings_refused"], nth).await
    }
}

fn echoes_to(ledger: &Ledger) -> String {
    format!("[plugins.misbehaving.settings]\necho_file = {:?}\n", ledger.path())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_signal_applies_what_can_change_and_names_the_rest() {
    let ledgers = [Ledger::new(), Ledger::new()];
    let place = Place::new(&echoes_to(&ledgers[0])).await;
    let echo = async || {
        let id = place.database.add("echo", json!({})).await;
        place.host.event("job_done", |line| line["job"] == id).await;
    };
    echo().await;
    assert_eq!(ledgers[0].entries().len(), 1);

    // Jobs that run finish under the old settings.
    let running = place.database.add("echo", json!({"sleep_ms": 3000, "announce": true})).await;
    ledgers[0].wait_for(2).await;
    place.write(&format!("[worker]\nconcurrency = 7\n[tasks]\nrescan = \"20s\"\n{}", echoes_to(&ledgers[1])));
    let line = place.hang_up(1).await;
    assert_eq!(
        line["message"],
        "reloaded taskbay.toml; applied: tasks.rescan; restarting with new settings: misbehaving (settings); \
         restart to apply: worker.concurrency"
    );
    let loaded = place.host.nth_event(&["plugin_loaded"], 2).await;
    assert_eq!(loaded["replaced"], loaded["build"], "the same build, started anew");
    echo().await;
    assert_eq!(ledgers[1].entries().len(), 1);
    place.host.event("job_done", |line| line["job"] == running).await;
    assert_eq!(ledgers[0].wait_for(3).await.len(), 3);

    // What waits for a restart is named until then, and what is in force is not applied once more.
    let line = place.hang_up(2).await;
    assert_eq!(line["message"], "reloaded taskbay.toml; restart to apply: worker.concurrency");
    place.write(&echoes_to(&ledgers[1]));
    assert_eq!(place.hang_up(3).await["message"], "reloaded taskbay.toml; applied: tasks.rescan");
    assert_eq!(place.hang_up(4).await["message"], "reloaded taskbay.toml: nothing has changed");
    echo().await;
    assert_eq!(place.host.events("plugin_loaded").len(), 2);
    place.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_used_keeps_the_old_settings_and_says_why() {
    let ledger = Ledger::new();
    let place = Place::new(&echoes_to(&ledger)).await;
    for (nth, settings, reason) in [
        (1, "[worker]\nconcurency = 1", "line 2: unknown key \"concurency\""),
        (2, "[plugins.misbehaving]\nmemory_limit = \"512\"", "is not a size: write it with its unit"),
        (3, "[database]\nmax_pool_size = 1", "is too small"),
        (4, "[tasks", "taskbay.toml, line 1"),
    ] {
        place.write(settings);
        let line = place.hang_up(nth).await;
        let said = line["message"].as_str().expect("a message");
        assert!(said.contains("so the old settings stay in force") && said.contains(reason), "{said}");
        place.database.add("echo", json!({})).await;
        ledger.wait_for(nth).await;
    }
    assert_eq!(place.host.events("plugin_loaded").len(), 1);
    place.host.stop().await;
}

/// A plugin that does not start with its new settings serves on with the old ones, and starts when they are mended.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_does_not_start_with_its_new_settings_serves_on_with_the_old_ones() {
    let ledgers = [Ledger::new(), Ledger::new()];
    let place = Place::new(&echoes_to(&ledgers[0])).await;
    place.write("[plugins.misbehaving.settings]\necho_fill = \"x\"");
    place.hang_up(1).await;
    let refused = place.host.event("file_rejected", |_| true).await;
    let said = refused["message"].as_str().expect("a message");
    assert!(said.contains("did you mean echo_file?") && said.contains("keeps serving"), "{said}");
    place.database.add("echo", json!({})).await;
    ledgers[0].wait_for(1).await;
    // That it does not go by its settings stays to be seen, and is told again when somebody asks for another try.
    let folder = place.folder.path();
    let plugins = || Taskbay::command("plugins").arg(folder).output();
    assert!(String::from_utf8_lossy(&plugins().stdout).contains("serves this build"), "{:?}", plugins());
    assert_eq!(plugins().status.code(), Some(1));
    place.hang_up(2).await;
    place.host.nth_event(&["file_rejected"], 2).await;
    assert_eq!(plugins().status.code(), Some(1));
    place.write(&echoes_to(&ledgers[1]));
    place.hang_up(3).await;
    place.host.nth_event(&["plugin_loaded"], 2).await;
    assert!(plugins().status.success());
    place.database.add("echo", json!({})).await;
    ledgers[1].wait_for(1).await;
    place.host.stop().await;
}

fn rejections(host: &Running) -> usize {
    host.events("file_rejected").iter().filter(|line| line["file"] == "libmisbehaving.so").count()
}

/// Also if the launch fails while the folder is being scanned, as it is all the time here.
#[tokio::test(flavor = "multi_thread")]
async fn one_reload_is_one_try_and_its_failure_is_reported_once() {
    let ledgers = [Ledger::new(), Ledger::new()];
    let place = Place::new(&echoes_to(&ledgers[0])).await;
    let large = fs::File::create(place.folder.path().join("large.so")).expect("create a file");
    let tries = 4;
    for nth in 1..=tries {
        large.set_len((64 << 20) + nth as u64).expect("change the file");
        place.write(&format!("[plugins.misbehaving.settings]\necho_fill = \"{nth}\""));
        place.hang_up(nth).await;
        let told = until(format_args!("failure {nth}"), async || {
            let told = rejections(&place.host);
            if told < nth { Err(told) } else { Ok(told) }
        })
        .await;
        assert_eq!(told, nth);
        // The scan that the reload has asked for finds this, or one after it.
        let last = format!("z{nth}.so");
        install(place.folder.path(), &last, b"no library");
        place.host.event("file_rejected", |line| line["file"] == last).await;
    }
    place.write(&echoes_to(&ledgers[1]));
    place.hang_up(tries + 1).await;
    place.host.nth_event(&["plugin_loaded"], 2).await;
    assert_eq!(rejections(&place.host), tries);
    place.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executable_gets_its_new_settings_and_a_strict_list_is_in_force() {
    let place = Place::new("").await;
    install(place.folder.path(), "slow.sh", b"#!/bin/sh\nexec sleep 600\n");
    place.host.event("plugin_loaded", |line| line["file"] == "slow.sh").await;
    let list = place.file.with_file_name("list");
    fs::write(&list, "").expect("write a list");
    place.write("[tasks]\nmanifest = \"list\"\n[plugins.slow]\ntimeout = \"100ms\"\ncancel_grace = \"0s\"");
    place.hang_up(1).await;
    // Neither is in the list; what serves goes on.
    install_plugin(place.folder.path(), "typed-plugin");
    let refused = place.host.event("file_rejected", |line| line["file"] == "libtyped_plugin.so").await;
    assert!(refused["message"].as_str().is_some_and(|said| said.contains("is not in the allow-list")), "{refused}");
    place.write("[plugins.slow]\ntimeout = \"100ms\"\ncancel_grace = \"0s\"");
    place.hang_up(2).await;
    place.host.event("plugin_loaded", |line| line["file"] == "libtyped_plugin.so").await;
    let id = place.database.add("slow", json!({})).await;
    place.host.event("job_failed", |line| line["job"] == id).await;
    place.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_not_in_force_is_told_once() {
    let place = Place::new("[tasks]\nrescan = \"50ms\"").await;
    place.write("[tasks]\nrescan = \"50ms\"\n[plugins.default]\ntimeout = \"1m\"");
    let line = place.host.event("settings_changed", |_| true).await;
    assert!(line["message"].as_str().is_some_and(|said| said.contains("SIGHUP (systemctl reload)")), "{line}");
    place.hang_up(1).await;
    fs::remove_file(&place.file).expect("remove taskbay.toml");
    place.host.nth_event(&["settings_changed"], 2).await;
    let line = place.hang_up(2).await;
    assert_eq!(
        line["message"],
        "reloaded taskbay.toml; applied: tasks.rescan; restarting with new settings: misbehaving (timeout)"
    );
    place.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_names_the_plugins_that_it_concerns_and_the_settings_that_concern_none() {
    let place = Place::new("").await;
    install(place.folder.path(), "slow.sh", b"#!/bin/sh\n");
    place.host.event("plugin_loaded", |line| line["file"] == "slow.sh").await;
    let unaffected = "[plugins.nobody]\ntimeout = \"1s\"\n[plugins.slow]\ncancel_grace = \"1s\"\n";
    place.write(&format!("{unaffected}[plugins.misbehaving]\nmemory_limit = \"64KiB\""));
    let line = place.hang_up(1).await;
    assert_eq!(
        line["message"],
        "reloaded taskbay.toml; restarting with new settings: misbehaving (memory_limit); from the next job on: slow \
         (cancel_grace); without effect: plugins.nobody.timeout (the tasks folder has no such plugin)"
    );
    assert_eq!((&line["restarting"], &line["applied"]), (&json!("misbehaving (memory_limit)"), &Value::Null));
    // The limit is too small to start with, which is told when it was tried.
    let refused = place.host.event("file_rejected", |_| true).await;
    let said = refused["message"].as_str().expect("a message");
    assert!(said.contains("too small to start it") && said.contains("line 6, [plugins.misbehaving]"), "{said}");
    place.host.stop().await;
}
