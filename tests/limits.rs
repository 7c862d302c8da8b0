//! Large numbers and large things, as `docs/limits.md` promises them: what is too large is said to be, and memory is bounded.

use std::{
    fs,
    io::Read,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use taskbay::{JobContext, Options, TaskList};

use crate::harness::{
    plugins::{build_labelled, file_name, install, install_plugin, tasks_folder},
    postgres::TestDatabase,
    processes::{children_of, resident_kib},
    program::Taskbay,
    wait::until,
};

const MIB: usize = 1 << 20;

/// Adds jobs with a payload of about this many bytes, which the database makes itself.
async fn add_large(database: &TestDatabase, task: &str, bytes: usize, count: i32) {
    let sql = "select count(graphile_worker.add_job($1, json_build_object('ms', 0, 'pad', repeat('x', $2))))
               from generate_series(1, $3)";
    let bytes = i32::try_from(bytes).expect("less than 2 GiB");
    database.id_of(sql, &[&task, &bytes, &count]).await;
}

/// The process of the misbehaving plugin.
fn plugin_process(host: u32) -> Option<u32> {
    children_of(host).into_iter().find(|(_, command)| command.contains("misbehaving")).map(|(process, _)| process)
}

fn send(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(process.cast_signed()).expect("a process"), signal).expect("send a signal");
}

/// No message of a plugin's process to its host is that long: the host would never hear that the job has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_says_too_much_of_its_end_ends_all_the_same() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path()).spawn();
    let id = database.add("fail", json!({"message": "0123456789abcde\u{e4}", "times": 5 * MIB})).await;
    host.event("job_failed", |line| line["job"] == id).await;
    let error = database.job(id).await.last_error.expect("it has failed");
    assert!(error.starts_with("0123456789abcde\u{e4}01234") && error.len() < 66_000, "{} bytes", error.len());
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_up_to_the_largest_arrives_and_a_larger_one_fails_with_the_reason() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path()).spawn();
    add_large(&database, "sleep", 63 * MIB, 1).await;
    host.event("job_done", |_| true).await;
    add_large(&database, "sleep", 64 * MIB, 1).await;
    host.event("job_failed", |_| true).await;
    let said = database.client().await.query_one("select last_error, attempts from graphile_worker.jobs", &[]).await;
    let said = said.expect("the job is still there");
    let (error, attempts): (String, i16) = (said.get(0), said.get(1));
    assert!(
        error.contains("at most 67108864 can be handed over") && error.contains("store the data elsewhere"),
        "{error}"
    );
    assert_eq!(attempts, 1);
    // And everything goes on.
    let next = database.add("nothing", json!({})).await;
    host.event("job_done", |line| line["job"] == next).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_files_in_the_folder_are_looked_through_and_the_few_tasks_among_them_found() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    for number in 0..990 {
        fs::write(folder.path().join(format!("note-{number}.txt")), "no task\n").expect("write a file");
    }
    for number in 0..9 {
        install(folder.path(), &format!("script-{number}.sh"), b"#!/bin/sh\n");
    }
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path()).spawn();
    let ready = host.event("folder_ready", |_| true).await;
    assert_eq!((&ready["plugins"], &ready["executables"]), (&1.into(), &9.into()));
    // A change among them is still noticed.
    install(folder.path(), &file_name("misbehaving"), &build_labelled(7));
    host.nth_event(&["plugin_loaded"], 11).await;
    for task in ["script-8", "nothing"] {
        let id = database.add(task, json!({})).await;
        host.event("job_done", |line| line["job"] == id).await;
    }
    let used = resident_kib(host.id());
    println!("a host with 1,000 files uses {used} KiB");
    assert!(used < 64 << 10, "{used} KiB");
    host.stop().await;
}

/// The lines are read slowly, with a look at the memory in between, so that the plugin is always ahead of the reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_logs_without_end_is_slowed_down_and_fills_no_memory() {
    const LINES: usize = 5_600;
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    // Three of its five levels are logged, each with this message.
    let message = "x".repeat(64 << 10);
    let total = LINES * 3 * message.len();
    database.add("log_lines", json!({"message": message, "count": LINES})).await;
    let call = Taskbay::run(&database.url(), folder.path()).arg("--log-level=info");
    let (mut host, _home) = call.spawn_with_log(Stdio::piped());
    let mut log = host.stderr.take().expect("its log");
    let (mut read, mut most, mut most_of_plugin) = (0, 0, 0);
    let mut buffer = vec![0; MIB];
    let began = Instant::now();
    while read < total {
        let count = log.read(&mut buffer).expect("read the log");
        assert!(count > 0, "the host ended after {read} bytes");
        let before = read / (4 * MIB);
        read += count;
        if read / (4 * MIB) > before {
            most = most.max(resident_kib(host.id()));
            if let Some(plugin) = plugin_process(host.id()) {
                most_of_plugin = most_of_plugin.max(resident_kib(plugin));
            }
        }
    }
    let (mib, took) = (total / MIB, began.elapsed());
    println!("{mib} MiB of log in {took:?}: the host used up to {most} KiB, the plugin {most_of_plugin} KiB");
    host.kill().expect("end the host");
    host.wait().expect("wait for its end");
    assert!((1..64 << 10).contains(&most), "the host used {most} KiB");
    assert!((1..64 << 10).contains(&most_of_plugin), "the plugin's process used {most_of_plugin} KiB");
}

/// Waits until so many jobs are locked. A process that does not read starts few of them.
async fn wait_until_claimed(database: &TestDatabase, count: usize) {
    let sql = "select count(*) from graphile_worker.jobs where locked_at is not null";
    until(format_args!("{count} are claimed"), async || match database.id_of(sql, &[]).await {
        claimed if claimed == count as i64 => Ok(()),
        claimed => Err(claimed),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugins_process_that_does_not_read_fills_no_memory_and_loses_no_job() {
    const AT_ONCE: usize = 24;
    const PAYLOAD: usize = 8 * MIB;
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path())
        .args(["-j", &AT_ONCE.to_string(), "--claim", "marked"])
        .settings(&format!("[worker]\nlocal_queue_size = {AT_ONCE}"))
        .spawn();
    host.event("listening", |_| true).await;
    let plugin = plugin_process(host.id()).expect("the plugin's process");
    send(plugin, Signal::STOP);
    add_large(&database, "sleep", PAYLOAD, 2 * i32::try_from(AT_ONCE).expect("a number")).await;
    // All slots are taken, and what is claimed beside them waits in this process, too.
    let claimed = 2 * AT_ONCE;
    wait_until_claimed(&database, claimed).await;
    let payloads = claimed as u64 * (PAYLOAD as u64 >> 10);
    let (mut most, began) = (0, Instant::now());
    // Memory is looked at for a while: nothing tells when it has grown as far as it will.
    while began.elapsed() < Duration::from_secs(1) {
        most = most.max(resident_kib(host.id()));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{claimed} claimed jobs have {payloads} KiB of payload, and the host uses up to {most} KiB");
    // The database's answer is there beside what is read from it, and its place is kept for the next one.
    assert!(most < 2 * payloads + (96 << 10), "{most} KiB for {payloads} KiB of payload");

    send(plugin, Signal::CONT);
    host.nth_event(&["job_done"], 2 * AT_ONCE).await;
    assert_eq!(host.events("job_failed").len(), 0);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_signal_ends_the_host_though_a_plugins_process_does_not_read() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let mut host = Taskbay::run(&database.url(), folder.path())
        .args(["-j", "6"])
        .settings("[worker]\nabort_timeout = \"100ms\"")
        .spawn();
    host.event("listening", |_| true).await;
    send(plugin_process(host.id()).expect("the plugin's process"), Signal::STOP);
    add_large(&database, "sleep", 8 * MIB, 6).await;
    wait_until_claimed(&database, 6).await;
    host.signal(Signal::TERM);
    host.event("stopping", |_| true).await;
    host.signal(Signal::TERM);
    host.ended_by(Signal::TERM).await;
    let locked = database.id_of("select count(*) from graphile_worker.jobs where locked_at is not null", &[]).await;
    let left = database.id_of("select count(*) from graphile_worker.jobs", &[]).await;
    assert_eq!((left, locked), (6, 0), "each is there for another host");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_tasks_are_served() {
    const TASKS: i32 = 10_000;
    let database = TestDatabase::installed().await;
    let mut tasks = TaskList::new();
    for number in 1..=TASKS {
        tasks = tasks.task(format!("task-{number}"), |_: serde_json::Value, _: JobContext| async { Ok(()) });
    }
    let sql = "select count(graphile_worker.add_job('task-' || n, '{}')) from generate_series(1, $1, 10) n";
    database.id_of(sql, &[&TASKS]).await;
    let began = Instant::now();
    let options = Options::new().database(database.database()).tasks(tasks);
    taskbay::run_once(options).await.expect("all jobs are worked");
    println!("a host with {TASKS} tasks worked a job of each tenth in {:?}", began.elapsed());
    database.wait_until_no_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_in_a_hundred_thousand_queues_are_worked() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    database
        .execute(
            "insert into graphile_worker._private_job_queues (queue_name)
             select 'queue ' || n from generate_series(1, 100000) n;
             select count(graphile_worker.add_job('nothing', '{}', 'queue ' || n))
             from generate_series(1, 100000, 50) n;",
        )
        .await;
    let began = Instant::now();
    let mut host = Taskbay::run(&database.url(), folder.path()).args(["--once", "--log-level=info"]).spawn();
    assert!(host.ended().await.success());
    println!("2,000 jobs, each in one of 100,000 queues, were worked in {:?}", began.elapsed());
    database.wait_until_no_jobs().await;
    assert_eq!(database.locked_queues().await, 0);
}
