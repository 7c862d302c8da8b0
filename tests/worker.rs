//! The worker: how jobs are claimed, run, completed, failed and given back.

mod failures;
mod stopping;
mod tasks;

use serde_json::json;

use crate::harness::{
    ledger::Ledger,
    plugins::{install, install_plugin, remove_plugin, tasks_folder},
    postgres::TestDatabase,
    processes::children_of,
    program::{Taskbay, of_job},
};

/// A poll that never comes, so that only notifications and the worker itself can be the cause of what happens.
const NEVER: &str = "1h";

/// A database with the schema, and a folder with the misbehaving plugin.
async fn workplace() -> (TestDatabase, tempfile::TempDir) {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    (database, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_job_is_heard_of_and_run_without_a_poll() {
    let (database, folder) = workplace().await;
    let host = Taskbay::run(&database.url(), folder.path()).args(["--poll-interval", NEVER]).listening().await;
    let id = database.add("nothing", json!({})).await;
    host.event("job_done", of_job(id)).await;
    database.wait_until_no_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_no_notification_told_of_is_found_by_a_poll() {
    let (database, folder) = workplace().await;
    let host = Taskbay::run(&database.url(), folder.path()).args(["--poll-interval", "100ms"]).listening().await;
    let id = database.add_in_an_hour("nothing", json!({})).await;
    database.execute("select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), now())").await;
    host.event("job_done", of_job(id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_jobs_run_at_once_than_asked_for_over_all_plugins() {
    let (database, folder) = workplace().await;
    let ledger = Ledger::new();
    let line = r#"{\"event\":\"%s\",\"job\":%s,\"attempt\":1,\"label\":\"\",\"pid\":1,\"payload\":\"\"}\\n"#;
    let note = |event: &str| format!("printf \"{line}\" {event} $GRAPHILE_WORKER_JOB_ID >>{}", ledger.path().display());
    let script = format!("#!/bin/sh\n{}\nsleep 0.05\n{}\n", note("began"), note("ended"));
    install(folder.path(), "script.sh", script.as_bytes());
    for _ in 0..12 {
        database.add("echo", json!({"sleep_ms": 100, "announce": true})).await;
        database.add("script", json!({})).await;
    }
    let command = Taskbay::run(&database.url(), folder.path()).args(["--once", "-j", "3"]).ledger(&ledger);
    let mut host = command.spawn();
    assert!(host.ended().await.success());
    assert_eq!(host.events("job_done").len(), 24);
    assert_eq!(most_at_once(&ledger), 3);
}

/// How many jobs ran at once, by the order of the lines that they wrote.
fn most_at_once(ledger: &Ledger) -> usize {
    let mut running = 0;
    let counts = ledger.entries().into_iter().map(|entry| {
        running += if entry.event == "began" { 1 } else { -1_isize };
        running
    });
    counts.max().and_then(|most| usize::try_from(most).ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_one_queue_run_one_after_another_and_do_not_wait_for_polls() {
    let (database, folder) = workplace().await;
    let ledger = Ledger::new();
    let command = Taskbay::run(&database.url(), folder.path()).args(["--poll-interval", NEVER, "-j", "10"]);
    let host = command.ledger(&ledger).listening().await;
    for _ in 0..20 {
        database.add_to_queue("echo", json!({"sleep_ms": 5, "announce": true}), "serial").await;
    }
    host.nth_event(&["job_done"], 20).await;
    assert_eq!(most_at_once(&ledger), 1);
    database.wait_until_no_jobs().await;
    assert_eq!(database.locked_queues().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn once_runs_all_that_can_run_now_also_what_the_jobs_added_and_ends() {
    let (database, folder) = workplace().await;
    let ledger = Ledger::new();
    for _ in 0..30 {
        database.add("echo", json!({})).await;
    }
    let nested =
        json!({"task": "add_plain", "payload": {"task": "echo", "payload": {"n": 1}, "key": "k", "priority": 3}});
    database.add("add", nested).await;
    let later = database.add_in_an_hour("echo", json!({})).await;
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").ledger(&ledger).spawn();
    assert!(host.ended().await.success());
    assert_eq!(ledger.entries().len(), 31);
    assert_eq!(database.jobs().await.iter().map(|job| job.id).collect::<Vec<_>>(), [later]);
}

#[tokio::test(flavor = "multi_thread")]
async fn once_without_any_job_ends_at_once() {
    let (database, folder) = workplace().await;
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn claiming_follows_the_folder() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    let id = database.add("nothing", json!({})).await;
    let host = Taskbay::run(&database.url(), folder.path()).args(["--poll-interval", NEVER]).listening().await;

    install_plugin(folder.path(), "misbehaving");
    host.event("job_done", of_job(id)).await;

    remove_plugin(folder.path(), "misbehaving");
    host.event("plugin_removed", |_| true).await;
    let unclaimed = database.add("nothing", json!({})).await;
    // The plugin that comes now proves that the worker looks for jobs again.
    install_plugin(folder.path(), "typed-plugin");
    let other = database.add("greet", json!({"to": "Ada", "times": 1})).await;
    host.event("job_done", of_job(other)).await;
    let job = database.job(unclaimed).await;
    assert_eq!((job.attempts, job.locked_by), (0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_plugin_runs_where_its_settings_say() {
    let (database, folder) = workplace().await;
    install_plugin(folder.path(), "typed-plugin");
    let settings = "[plugins.misbehaving]\nisolation = \"in-process\"";
    let host = Taskbay::run(&database.url(), folder.path()).settings(settings).ready().await;
    let children = children_of(host.id());
    assert!(children.len() == 1 && children[0].1.contains("typed_plugin"), "{children:?}");
    for (task, payload) in [("nothing", json!({})), ("greet", json!({"to": "Ada", "times": 1}))] {
        let id = database.add(task, payload).await;
        host.event("job_done", of_job(id)).await;
    }
    host.stop().await;
}
