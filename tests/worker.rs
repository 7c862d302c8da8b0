//! The worker: how jobs are claimed, run, completed, failed and given back.

use std::{path::Path, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    jobs::JobRow,
    ledger::Ledger,
    plugins::{install, install_plugin, remove_plugin, tasks_folder},
    postgres::TestDatabase,
    processes::{children_of, wait_until_gone},
    program::{Running, Taskbay},
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

async fn ready(command: Taskbay) -> Running {
    let host = command.spawn();
    host.event("worker_ready", |_| true).await;
    host
}

async fn listening(command: Taskbay) -> Running {
    let host = ready(command).await;
    host.event("listening", |_| true).await;
    host
}

fn of_job(id: i64) -> impl Fn(&Value) -> bool {
    move |line| line["job"] == id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_job_is_heard_of_and_run_without_a_poll() {
    let (database, folder) = workplace().await;
    let host = listening(Taskbay::run(&database.url(), folder.path()).args(["--poll-interval", NEVER])).await;
    let id = database.add("nothing", json!({})).await;
    host.event("job_done", of_job(id)).await;
    database.wait_until_no_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_no_notification_told_of_is_found_by_a_poll() {
    let (database, folder) = workplace().await;
    let host = listening(Taskbay::run(&database.url(), folder.path()).args(["--poll-interval", "100ms"])).await;
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
    let host = listening(command.ledger(&ledger)).await;
    for _ in 0..20 {
        database.add_to_queue("echo", json!({"sleep_ms": 5, "announce": true}), "serial").await;
    }
    host.nth_event(&["job_done"], 20).await;
    assert_eq!(most_at_once(&ledger), 1);
    database.wait_until_no_jobs().await;
    assert_eq!(database.locked_queues().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_waits_longer_with_each_attempt_and_keeps_its_error() {
    let (database, folder) = workplace().await;
    let id = database.add("fail", json!({"message": "no luck"})).await;
    for attempt in 1..=3_i16 {
        let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
        assert!(host.ended().await.success());
        let job = database.job(id).await;
        assert_eq!(job.last_error.as_deref(), Some("no luck"));
        assert_eq!(job.attempts, attempt);
        assert!(job.locked_by.is_none());
        let expected = f64::from(attempt).exp();
        let waits = database.seconds_until_run(id).await;
        assert!(
            waits <= expected && waits > expected - 60.0 && waits > 0.0,
            "attempt {attempt}: {waits} s of {expected} s"
        );
        database.execute("update graphile_worker._private_jobs set run_at = now()").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_fails_for_good_when_its_attempts_are_used_up_or_its_task_says_so() {
    let (database, folder) = workplace().await;
    let discarded = database.add("discard", json!({"message": "pointless"})).await;
    let twice = database.add("fail_twice", json!({})).await;
    let run = || Taskbay::run(&database.url(), folder.path()).arg("--once");
    let mut host = run().spawn();
    assert!(host.ended().await.success());
    let job = database.job(discarded).await;
    assert_eq!((job.attempts, job.last_error.as_deref()), (job.max_attempts, Some("pointless")));
    assert_eq!(host.event("job_failed", of_job(discarded)).await["retry"], false);
    let failed = host.event("job_failed", of_job(twice)).await;
    assert_eq!((&failed["retry"], &failed["attempt"], &failed["max_attempts"]), (&json!(true), &json!(1), &json!(2)));
    let job = database.job(twice).await;
    assert_eq!((job.attempts, job.max_attempts), (1, 2), "lists show the bound that holds");

    database.execute("update graphile_worker._private_jobs set run_at = now() where attempts < max_attempts").await;
    let mut host = run().spawn();
    assert!(host.ended().await.success());
    let job = database.job(twice).await;
    assert_eq!((job.attempts, job.max_attempts), (2, 2), "the task allows two attempts");
    let failed = host.event("job_failed", of_job(twice)).await;
    assert_eq!((&failed["retry"], &failed["attempt"], &failed["max_attempts"]), (&json!(false), &json!(2), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_its_job_with_the_message_and_the_place() {
    let (database, folder) = workplace().await;
    for (task, isolation) in [("panic", "--in-process"), ("panic_plain", "--log-level=debug")] {
        let id = database.add(task, json!({"message": "oh no"})).await;
        let mut host = Taskbay::run(&database.url(), folder.path()).args(["--once", isolation]).spawn();
        assert!(host.ended().await.success());
        let error = database.job(id).await.last_error.unwrap();
        assert!(error.contains("oh no") && error.contains("src/lib.rs:"), "{error}");
    }
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
async fn a_stop_signal_lets_running_jobs_finish_and_their_results_are_stored() {
    let (database, folder) = workplace().await;
    let mut host = listening(Taskbay::run(&database.url(), folder.path()).args(["-j", "2"])).await;
    let running = [database.add("sleep", json!({"ms": 700})).await, database.add("sleep", json!({"ms": 700})).await];
    for id in running {
        host.event("job_started", of_job(id)).await;
    }
    let waiting = database.add("nothing", json!({})).await;
    host.signal(Signal::TERM);
    host.ended_by(Signal::TERM).await;
    for id in running {
        host.event("job_done", of_job(id)).await;
    }
    let left = database.jobs().await;
    assert_eq!(
        left.iter().map(|job| (job.id, job.attempts, job.locked_by.clone())).collect::<Vec<_>>(),
        [(waiting, 0, None)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_job_is_told_of_the_stop_and_may_end_early() {
    let (database, folder) = workplace().await;
    let settings = "[worker]\nabort_timeout = \"100ms\"\n";
    let mut host = listening(Taskbay::run(&database.url(), folder.path()).settings(settings)).await;
    let id = database.add("wait_for_cancellation", json!({})).await;
    host.event("job_started", of_job(id)).await;
    host.signal(Signal::INT);
    host.ended_by(Signal::INT).await;
    let job = database.job(id).await;
    assert_eq!(job.last_error.as_deref(), Some("stopped because it was told to"));
    assert!(job.locked_by.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_or_the_end_of_the_time_cancels_what_runs_and_gives_it_back() {
    for (settings, signals) in [("", 2), ("[worker]\nabort_timeout = \"1ms\"\nstop_timeout = \"100ms\"", 1)] {
        let (database, folder) = workplace().await;
        let mut host = listening(Taskbay::run(&database.url(), folder.path()).settings(settings)).await;
        let id = database.add_to_queue("sleep", json!({"ms": 600_000}), "q").await;
        host.event("job_started", of_job(id)).await;
        host.signal(Signal::TERM);
        host.event("stopping", |_| true).await;
        if signals == 2 {
            host.signal(Signal::TERM);
        }
        host.ended_by(Signal::TERM).await;
        let job = database.job(id).await;
        // As it was: an attempt that this host has ended is none.
        assert_eq!((job.attempts, job.locked_by, job.last_error), (0, None, None));
        assert_eq!(database.locked_queues().await, 0);
        assert!(database.seconds_until_run(id).await <= 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ignores_its_timeout_is_stopped_and_says_so() {
    let (database, folder) = workplace().await;
    let id = database.add("too_slow", json!({})).await;
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());
    let error = database.job(id).await.last_error.unwrap();
    assert!(error.contains("200ms"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn claiming_follows_the_folder() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    let id = database.add("nothing", json!({})).await;
    let host = listening(Taskbay::run(&database.url(), folder.path()).args(["--poll-interval", NEVER])).await;

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
async fn a_log_line_of_a_task_carries_its_job_task_plugin_and_build() {
    let (database, folder) = workplace().await;
    for isolation in ["--in-process", "--log-level=debug"] {
        let id = database.add("log_lines", json!({"message": "hello"})).await;
        let mut host = Taskbay::run(&database.url(), folder.path()).args(["--once", isolation]).spawn();
        assert!(host.ended().await.success());
        let build = host.event("plugin_loaded", |_| true).await["build"].clone();
        let line = host.lines().into_iter().find(|line| line["message"] == "hello (info)").expect("the line is there");
        assert_eq!(line["job"], id);
        assert_eq!(line["task"], "log_lines");
        assert_eq!(line["plugin"], "misbehaving");
        assert_eq!(line["build"], build);
        let fields: Value = serde_json::from_str(line["fields"].as_str().unwrap()).unwrap();
        assert_eq!(fields, json!({"n": 1, "name": "ada"}));
        for level in ["debug", "warn", "error"] {
            let message = format!("hello ({level})");
            assert!(host.lines().iter().any(|line| line["message"] == *message), "{message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_knows_its_job() {
    let (database, folder) = workplace().await;
    let id = database
        .id_of(
            "select (graphile_worker.add_job('describe', '{\"a\": 1}', 'a queue', now(), 7, 'a key', -5, array['flag'])).id",
            &[],
        )
        .await;
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());
    let line = host.lines().into_iter().find(|line| line["message"] == "my job").expect("the line is there");
    let fields: Value = serde_json::from_str(line["fields"].as_str().unwrap()).unwrap();
    let job: Value = serde_json::from_str(fields["described"].as_str().unwrap()).unwrap();
    assert_eq!(job["id"], id);
    for (field, value) in [
        ("task", json!("describe")),
        ("attempt", json!(1)),
        ("max_attempts", json!(7)),
        ("priority", json!(-5)),
        ("queue", json!("a queue")),
        ("key", json!("a key")),
        ("revision", json!(0)),
        ("payload", json!("{\"a\": 1}")),
        ("last_error", Value::Null),
    ] {
        assert_eq!(job[field], value, "{field}");
    }
    assert_eq!(job["flags"], json!(["flag"]));
    let micros = |field: &str| job[field].as_str().unwrap().parse::<u128>().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    for field in ["run_at", "created_at", "updated_at"] {
        let ago = now.saturating_sub(Duration::from_micros(u64::try_from(micros(field)).unwrap()));
        assert!(ago < Duration::from_secs(600), "{field} was {ago:?} ago");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_added_by_a_task_has_all_that_it_was_given() {
    let (database, folder) = workplace().await;
    let spec = json!({
        "task": "a task that nobody has", "payload": {"big": 12_345_678_901_234_567_890_u64}, "delay_ms": 3_600_000,
        "queue": "q", "key": "k", "priority": 4, "max_attempts": 3,
    });
    database.add("add", spec).await;
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());
    let JobRow { task, payload, queue, key, priority, max_attempts, .. } = database.only_job().await;
    assert_eq!(task, "a task that nobody has");
    assert_eq!(payload, "{\"big\":12345678901234567890}");
    assert_eq!((queue.as_deref(), key.as_deref(), priority, max_attempts), (Some("q"), Some("k"), 4, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_added_fails_the_task_with_the_reason() {
    let (database, folder) = workplace().await;
    let id = database.add("add", json!({"task": "x".repeat(200), "payload": {}})).await;
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());
    let error = database.job(id).await.last_error.unwrap();
    assert!(error.contains("could not add a job") && error.contains("128"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_prints_arrives_in_the_log() {
    let (database, folder) = workplace().await;
    database.add("print", json!({"text": "hello"})).await;
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());
    for message in ["hello (stdout)", "hello (stderr)"] {
        host.event("plugin_output", |line| line["message"] == *message && line["plugin"] == "misbehaving").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_plugin_runs_where_its_settings_say() {
    let (database, folder) = workplace().await;
    install_plugin(folder.path(), "typed-plugin");
    let settings = "[plugins.misbehaving]\nisolation = \"in-process\"";
    let host = ready(Taskbay::run(&database.url(), folder.path()).settings(settings)).await;
    let children = children_of(host.id());
    assert!(children.len() == 1 && children[0].1.contains("typed_plugin"), "{children:?}");
    for (task, payload) in [("nothing", json!({})), ("greet", json!({"to": "Ada", "times": 1}))] {
        let id = database.add(task, payload).await;
        host.event("job_done", of_job(id)).await;
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_leaves_no_child() {
    let (database, folder) = workplace().await;
    install_plugin(folder.path(), "typed-plugin");
    let host = listening(Taskbay::run(&database.url(), folder.path()).args(["-j", "3"])).await;
    // One of them never looks at anything any more.
    let spinning = database.add("spin", json!({})).await;
    let sleeping = database.add("sleep", json!({"ms": 600_000})).await;
    for id in [spinning, sleeping] {
        host.event("job_started", of_job(id)).await;
    }
    let children = children_of(host.id());
    assert_eq!(children.len(), 2, "{children:?}");
    host.signal(Signal::KILL);
    for (child, _) in children {
        wait_until_gone(child).await;
    }
    assert!(Path::new("/proc/self").exists(), "there are processes to look at");
}
