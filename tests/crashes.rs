//! A plugin that takes its process down: its own jobs fail with the reason, others notice nothing, and it serves again.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    plugins::{build_labelled, file_name, install, install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay, of_job},
};

/// How long a slow machine may take for what should take a moment.
const SOON: Duration = Duration::from_secs(10);

/// What a task does to its process, and what is then said of its job.
struct Crash {
    task: &'static str,
    payload: Value,
    /// For `taskbay.toml`.
    settings: &'static str,
    said: &'static [&'static str],
}

impl Crash {
    fn of(task: &'static str, said: &'static [&'static str]) -> Self {
        Self { task, payload: json!({}), settings: "", said }
    }
}

/// Runs the crashing job beside another job of its plugin and one of another plugin.
async fn only_its_own_plugin_notices(crash: Crash) {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    install_plugin(folder.path(), "typed-plugin");
    let host = Taskbay::run(&database.url(), folder.path()).settings(crash.settings).spawn();
    host.event("listening", |_| true).await;

    let beside = database.add("wait_for_cancellation", json!({})).await;
    let bystander = database.add("greet", json!({"to": "Ada", "times": 500})).await;
    for id in [beside, bystander] {
        host.event("job_started", of_job(id)).await;
    }
    let crashing = database.add(crash.task, crash.payload).await;

    let failed = host.event("job_failed", of_job(crashing)).await;
    host.event("job_failed", of_job(beside)).await;
    host.event("plugin_crashed", |line| line["plugin"] == "misbehaving").await;
    let next = database.add("nothing", json!({})).await;
    let served = host.event("job_done", of_job(next)).await;
    host.event("job_done", of_job(bystander)).await;

    for part in crash.said {
        for id in [crashing, beside] {
            let job = database.job(id).await;
            let error = job.last_error.expect("it failed");
            assert!(error.contains(part), "job {id}: {error}");
            assert_eq!((job.attempts, job.locked_by), (1, None));
        }
    }
    assert_soon(crash.task, &failed, &served);
    assert_eq!(host.events("plugin_crashed").len(), 1, "nobody else crashed");
    host.stop().await;
}

/// It serves again within a second where nothing else is to do; what a slow machine takes is printed.
#[track_caller]
fn assert_soon(task: &str, failed: &Value, served: &Value) {
    let pause = micros(served) - micros(failed);
    println!("{task}: a job ran {} ms after the crash was noticed", pause / 1_000);
    assert!(pause < i64::try_from(SOON.as_micros()).unwrap(), "the plugin did not serve again for {pause} µs");
}

fn micros(line: &Value) -> i64 {
    line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segmentation_fault() {
    only_its_own_plugin_notices(Crash::of("segfault", &["plugin misbehaving", "signal 11 (SIGSEGV"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort() {
    only_its_own_plugin_notices(Crash::of("abort", &["plugin misbehaving", "signal 6 (SIGABRT"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit() {
    only_its_own_plugin_notices(Crash::of("exit", &["plugin misbehaving", "exit status 3"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_overflow() {
    only_its_own_plugin_notices(Crash::of("overflow_stack", &["plugin misbehaving", "stack"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allocation_without_end() {
    let crash = Crash {
        settings: "[plugins.misbehaving]\nmemory_limit = \"256MiB\"",
        ..Crash::of("allocate", &["plugin misbehaving", "memory allocation of", "memory limit"])
    };
    only_its_own_plugin_notices(crash).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_without_end() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    install_plugin(folder.path(), "typed-plugin");
    let settings = "[plugins.misbehaving]\ntimeout = \"300ms\"\ncancel_grace = \"100ms\"";
    let host = Taskbay::run(&database.url(), folder.path()).settings(settings).spawn();
    host.event("listening", |_| true).await;
    let bystander = database.add("greet", json!({"to": "Ada", "times": 500})).await;
    host.event("job_started", of_job(bystander)).await;

    let spinning = database.add("spin", json!({})).await;
    let failed = host.event("job_failed", of_job(spinning)).await;
    let next = database.add("nothing", json!({})).await;
    let served = host.event("job_done", of_job(next)).await;
    assert_soon("spin", &failed, &served);
    host.event("job_done", of_job(bystander)).await;

    let error = database.job(spinning).await.last_error.expect("it failed");
    assert!(error.contains("300ms") && error.contains("restarted"), "{error}");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_keeps_crashing_is_left_alone_until_a_new_build_comes() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    let file = file_name("misbehaving");
    install(folder.path(), &file, &build_labelled(1));
    let host = Taskbay::run(&database.url(), folder.path()).arg("--watch").spawn();
    host.event("listening", |_| true).await;
    for crash in 1..=5 {
        crash_once(&host, &database, crash).await;
    }
    host.event("plugin_quarantined", |_| true).await;
    host.event("task_map_published", |line| line["tasks"] == 0).await;

    // Claimed by nobody, so that it keeps its attempts; a job of another plugin shows that the worker has looked.
    let waiting = database.add("nothing", json!({})).await;
    install_plugin(folder.path(), "typed-plugin");
    let other = database.add("greet", json!({"to": "Ada", "times": 1})).await;
    host.event("job_done", of_job(other)).await;
    let job = database.job(waiting).await;
    assert_eq!((job.attempts, job.locked_by), (0, None));

    install(folder.path(), &file, &build_labelled(2));
    host.event("job_done", of_job(waiting)).await;
    host.stop().await;
}

/// In a process of its own and in the host's.
#[tokio::test(flavor = "multi_thread")]
async fn an_async_task_that_blocks_is_named_and_the_others_of_its_plugin_go_on() {
    for how in [&[][..], &["--in-process"]] {
        let database = TestDatabase::installed().await;
        let (folder, files) = (tasks_folder(), tempfile::tempdir().unwrap());
        install_plugin(folder.path(), "typed-plugin");
        let host = Taskbay::run(&database.url(), folder.path()).args(how).spawn();
        host.event("listening", |_| true).await;
        let file = files.path().join("go on");
        let blocked = database.add("blocks_until", json!(file)).await;
        host.event("job_started", of_job(blocked)).await;
        for _ in 0..5 {
            let other = database.add("greet", json!({"to": "Ada", "times": 3})).await;
            host.event("job_done", of_job(other)).await;
        }
        let named = |line: &Value| {
            let text = line["message"].as_str().unwrap_or_default();
            text.contains("the async task `blocks_until`") && text.contains("blocks its thread")
        };
        let line = host.line(named).await;
        assert_eq!(
            (&line["level"], &line["job"], &line["task"]),
            (&json!("WARN"), &json!(blocked), &json!("blocks_until"))
        );
        std::fs::write(file, "").unwrap();
        host.event("job_done", of_job(blocked)).await;
        assert_eq!(host.lines().iter().filter(|line| named(line)).count(), 1, "it is named once");
        host.stop().await;
    }
}

async fn crash_once(host: &Running, database: &TestDatabase, crash: usize) {
    let id = database.add("abort", json!({})).await;
    host.event("job_failed", of_job(id)).await;
    if crash < 5 {
        host.nth_event(&["plugin_restarted"], crash).await;
    }
}

/// Lets each job that failed be tried again at once, for as long as there is one that can be.
async fn hurry(database: &TestDatabase) {
    database
        .execute("update graphile_worker._private_jobs set run_at = now() where locked_by is null and attempts > 0")
        .await;
}

/// The job that crashes is tried again alone, and is given up after three crashes; one that only ran beside it does its work.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_crashes_again_and_again_is_given_up_and_takes_no_other_along() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path()).args(["--poll-interval", "50ms"]).spawn();
    host.event("listening", |_| true).await;
    let beside = database.add("sleep", json!({"ms": 1_000})).await;
    host.event("job_started", of_job(beside)).await;
    let poison = database.add("segfault", json!({})).await;
    host.event("job_failed", of_job(poison)).await;
    host.event("job_failed", of_job(beside)).await;
    host.event("plugin_restarted", |_| true).await;
    let job = database.job(beside).await;
    let error = job.last_error.expect("it failed");
    assert!(error.ends_with("the next attempt has a process of its own (crash 1)"), "{error}");

    hurry(&database).await;
    host.event("job_failed", |line| line["job"] == poison && line["attempt"] == 2).await;
    host.event("job_done", |line| line["job"] == beside && line["attempt"] == 2).await;
    hurry(&database).await;
    host.event("job_failed", |line| line["job"] == poison && line["attempt"] == 3).await;
    let job = database.job(poison).await;
    assert_eq!((job.attempts, job.max_attempts, job.locked_by), (25, 25, None), "it is not tried again");
    let error = job.last_error.expect("it failed");
    assert!(error.contains("signal 11 (SIGSEGV"), "{error}");
    assert!(error.ends_with("it was alone in its process and is not tried again (crash 3)"), "{error}");
    assert_eq!(host.events("plugin_crashed").len(), 1, "nobody else noticed the later ones");
    host.stop().await;
}

/// Neither what a task says nor what a worker on Node has stored.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_text_that_looks_like_a_count_of_crashes_counts_for_nothing() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path()).args(["--poll-interval", "50ms"]).spawn();
    host.event("listening", |_| true).await;
    let text = "it broke (crash 3)";
    let told = database.add("fail", json!({"message": text})).await;
    let sql = "select (graphile_worker.add_job('nothing', run_at := now() + interval '1 hour')).id";
    let stored = database.id_of(sql, &[]).await;
    host.event("job_failed", of_job(told)).await;
    assert_eq!(database.job(told).await.last_error.as_deref(), Some(text));
    let segfaults = "task_id = (select id from graphile_worker._private_tasks where identifier = 'segfault')";
    for (id, crashes, text) in [(told, 1, text), (stored, 2, "the host x ended (crash 3)")] {
        let change = format!("last_error = '{text}', attempts = 1, run_at = now(), {segfaults}");
        database.execute(&format!("update graphile_worker._private_jobs set {change} where id = {id}")).await;
        host.event("job_failed", move |line| line["job"] == id && line["attempt"] == 2).await;
        let job = database.job(id).await;
        assert_eq!((job.attempts, job.max_attempts), (2, 25), "it is tried again");
        let error = job.last_error.expect("it failed");
        assert!(error.ends_with("the next attempt has a process of its own (crash 1)"), "{error}");
        // It ran where the others do.
        host.nth_event(&["plugin_restarted"], crashes).await;
    }
    host.stop().await;
}

/// The next host has the count, whatever the job was marked with besides.
#[tokio::test(flavor = "multi_thread")]
async fn the_count_of_crashes_survives_the_end_of_a_host_and_does_not_grow_by_it() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    let record = |count: u32, attempt: u32| json!({"taskbay:crashes": {"count": count, "attempt": attempt}});
    let ended = |count: u32| json!({"count": count, "attempt": 4, "host_ended": true});
    let mut slow = record(2, 3);
    slow["slow"] = json!(true);
    let mut expected = Vec::new();
    for (flags, count) in [
        (slow, 2),
        (Value::Null, 0),
        // An attempt between ended otherwise, or somebody else wrote something.
        (record(2, 2), 0),
        (json!({"taskbay:crashes": true}), 0),
        (json!({"taskbay:crashes": {"count": "x", "attempt": "3"}}), 0),
    ] {
        let id = database.add("theirs", json!({})).await;
        let flags = if flags.is_null() { "null".to_owned() } else { format!("'{flags}'") };
        let change = "attempts = 4, locked_by = 'taskbay-live-0123456789abcdef01', locked_at = now()";
        database
            .execute(&format!("update graphile_worker._private_jobs set flags = {flags}, {change} where id = {id}"))
            .await;
        expected.push((id, count));
    }
    let host = Taskbay::run(&database.url(), folder.path()).spawn();
    host.event("taken_over", |_| true).await;
    let client = database.client().await;
    for (place, (id, count)) in expected.into_iter().enumerate() {
        let row =
            client.query_one("select flags from graphile_worker._private_jobs where id = $1", &[&id]).await.unwrap();
        let flags: Value = row.get(0);
        assert_eq!(flags["taskbay:crashes"], ended(count), "{flags}");
        assert_eq!(flags["slow"] == true, place == 0, "{flags}");
        let error = database.job(id).await.last_error.expect("its host ended");
        assert_eq!(error, "the host taskbay-live-0123456789abcdef01 ended without a word while it had this job");
    }
    host.stop().await;
}

/// A process that is to run one job is stopped like any other: by the time that the job may take, by the host's end, and with
/// the build.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_alone_keeps_to_its_time_and_ends_with_its_build() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    let settings = "[plugins.misbehaving]\ntimeout = \"300ms\"\ncancel_grace = \"100ms\"";
    let host = Taskbay::run(&database.url(), folder.path()).settings(settings).spawn();
    host.event("listening", |_| true).await;
    let crashed = r#"update graphile_worker._private_jobs set flags = '{"taskbay:crashes": {"count": 1, "attempt": 0}}', run_at = now() where id = "#;
    let later = |task: &'static str, payload: Value| {
        let database = &database;
        async move {
            let sql = format!(
                "select (graphile_worker.add_job('{task}', '{payload}', run_at := now() + interval '1 hour')).id"
            );
            let id = database.id_of(&sql, &[]).await;
            database.execute(&format!("{crashed}{id}")).await;
            database.execute("select pg_notify('jobs:insert', '{\"r\":1,\"count\":1}')").await;
            id
        }
    };
    let spinning = later("spin", json!({})).await;
    host.event("job_failed", of_job(spinning)).await;
    let error = database.job(spinning).await.last_error.expect("it failed");
    assert!(error.contains("300ms"), "{error}");
    assert!(host.events("plugin_crashed").is_empty(), "the process of the others was left alone");
    let asleep = later("sleep", json!({"ms": 200})).await;
    host.event("job_started", of_job(asleep)).await;
    host.stop().await;
    assert!(database.jobs().await.iter().all(|job| job.id != asleep), "it was done before the host ended");
}

/// A job that ends its host, which no other job survives either, does so once: the next host runs it in another process.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_its_host_does_so_once() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    let host = || {
        let args = ["--in-process", "--poll-interval", "50ms"];
        Taskbay::run(&database.url(), folder.path()).args(args).spawn()
    };
    let mut first = host();
    first.event("listening", |_| true).await;
    let poison = database.add("segfault", json!({})).await;
    assert!(!first.ended().await.success());
    let second = host();
    second.event("taken_over", |_| true).await;
    for attempt in [2, 3] {
        hurry(&database).await;
        second.event("job_failed", |line| line["job"] == poison && line["attempt"] == attempt).await;
    }
    let job = database.job(poison).await;
    assert_eq!((job.attempts, job.max_attempts, job.locked_by), (25, 25, None), "it is not tried again");
    let error = job.last_error.expect("it failed");
    assert!(error.ends_with("it was alone in its process and is not tried again (crash 3)"), "{error}");
    let next = database.add("nothing", json!({})).await;
    second.event("job_done", of_job(next)).await;
    second.stop().await;
}
