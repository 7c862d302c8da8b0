//! Parts of the host that fail.

use std::{fs, path::PathBuf};

use rustix::process::Signal;
use serde_json::json;
use taskbay::{Options, TaskList, config::ForbiddenFlags, library::RunError};
use tempfile::TempDir;

use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{DEADLINE, Running, Taskbay},
};

/// All that a host has, but for those that come and go with a plugin or a job.
const PARTS: [&str; 10] = [
    "claimer",
    "overflow claimer",
    "liveness lock",
    "renewal of locks",
    "search for orphaned claims",
    "retries of refused jobs",
    "listener",
    "revision watch",
    "schedules",
    "tasks folder",
];

/// A host that works, and the file that names the parts of it that are to panic.
struct Faulty {
    database: TestDatabase,
    faults: PathBuf,
    host: Running,
    _folder: TempDir,
}

impl Faulty {
    async fn new() -> Self {
        let (database, folder) = (TestDatabase::installed().await, tasks_folder());
        install_plugin(folder.path(), "misbehaving");
        let faults = folder.path().with_extension("faults");
        let host = Taskbay::run(&database.url(), folder.path())
            .env("FAULT_FILE_OF_TASKBAYS_TESTS", &faults)
            .env("RUST_BACKTRACE", "0")
            .spawn();
        host.event("worker_ready", |_| true).await;
        Self { database, faults, host, _folder: folder }
    }
}

/// Starts a host, has one of its parts panic while a job runs, and sees it end.
async fn ends_when_it_panics(part: &str, at_the_end_of_the_job: bool) {
    let Faulty { database, faults, mut host, _folder } = Faulty::new().await;
    let ms = if at_the_end_of_the_job { 500 } else { 1_000_000 };
    let job = database.add_to_queue("sleep", json!({ "ms": ms }), "q").await;
    host.event("job_started", |_| true).await;
    fs::write(&faults, format!("panic {part}")).expect("ask for a fault");
    let status = host.ended().await;
    fs::remove_file(&faults).expect("remove the file");
    assert_eq!(status.code(), Some(70), "{part}: {status:?}");
    let failed = host.events("part_failed");
    assert_eq!(failed.first().map(|line| &line["part"]), Some(&json!(part)), "{failed:?}");
    assert!(failed[0]["location"].as_str().is_some_and(|place| place.contains("parts.rs")), "{failed:?}");
    assert_eq!(host.events("host_failed").len(), 1, "{part}");
    let last = host.lines().pop().expect("it said something");
    assert!(last.as_str().is_some_and(|said| said.contains("internal error") && said.contains(part)), "{last}");
    let row = database.job(job).await;
    assert_eq!((row.locked_by, row.attempts), (None, 0), "{part}: the job was given back");
    assert_eq!(database.locked_queues().await, 0, "{part}: and so was its queue");
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_one_of_its_parts_gives_back_what_it_holds_and_ends() {
    for part in PARTS {
        ends_when_it_panics(part, false).await;
    }
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn so_does_one_that_loses_a_job_slot() {
    ends_when_it_panics("job slot", true).await;
}

/// What a program gives the host to call may panic, in the middle of the claimer.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_claimer_ends_the_host_of_a_program() {
    let database = TestDatabase::installed().await;
    let list = TaskList::new().task("tick", |_: serde_json::Value, _| async { Ok(()) });
    let flags = ForbiddenFlags::asked(|| async { panic!("no flags today") });
    let options = Options::new().config(database.config()).tasks(list).forbidden_flags(flags);
    let runner = taskbay::run(options).await.expect("the host starts");
    let ended = tokio::time::timeout(DEADLINE, runner.wait()).await.expect("the host ends");
    let error = ended.expect_err("it says why");
    assert!(matches!(error, RunError::Host(_)), "{error:?}");
    assert!(error.to_string().contains("no flags today"), "{error}");
}

/// The last step of such a host is one statement for all of its jobs, which one of them must not make fail.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lost_a_part_gives_back_all_jobs_but_the_one_that_the_database_refuses() {
    let Faulty { database, faults, mut host, _folder } = Faulty::new().await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let job = database.add("sleep", json!({ "ms": 1_000_000 })).await;
        host.event("job_started", |line| line["job"] == job).await;
        jobs.push(job);
    }
    database
        .execute(&format!(
            "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not this one'; end $$;
             create trigger refuse before update on graphile_worker._private_jobs
             for each row when (new.id = {} and new.locked_at is null) execute function refuse()",
            jobs[1]
        ))
        .await;
    fs::write(&faults, "panic claimer").expect("ask for a fault");
    assert_eq!(host.ended().await.code(), Some(70));
    fs::remove_file(&faults).expect("remove the file");
    for (job, given_back) in jobs.into_iter().zip([true, false, true]) {
        assert_eq!(database.job(job).await.locked_by.is_none(), given_back, "{job}");
    }
}

/// Later stages need earlier ones: jobs the tasks, schedules the database.
#[tokio::test(flavor = "multi_thread")]
async fn stages_start_in_order_and_stop_in_reverse_after_the_last_job() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let mut host =
        Taskbay::run(&database.url(), folder.path()).args(["--log-level", "debug,taskbay::host=trace"]).spawn();
    let job = database.add("sleep", json!({ "ms": 100 })).await;
    host.event("job_started", |line| line["job"] == job).await;
    host.signal(Signal::TERM);
    host.ended().await;
    let names = ["stage_started", "worker_ready", "job_done", "stage_stopping", "stopped"];
    let lines = host.lines();
    let events = lines.iter().filter(|line| names.iter().any(|name| line["event"] == *name));
    let order: Vec<String> = events
        .map(|line| match line["stage"].as_str() {
            Some(stage) => format!("{} {stage}", line["event"].as_str().unwrap_or_default()),
            None => line["event"].as_str().unwrap_or_default().to_owned(),
        })
        .collect();
    assert_eq!(
        order,
        [
            "stage_started tasks folder",
            "stage_started listener",
            "stage_started revision watch",
            "stage_started schedules",
            "worker_ready",
            "job_done",
            "stage_stopping schedules",
            "stage_stopping revision watch",
            "stage_stopping listener",
            "stage_stopping tasks folder",
            "stopped",
        ]
    );
}

/// The stages that have started already can fail before the host works.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_waits_for_its_database_ends_when_it_loses_a_stage() {
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    let faults = folder.path().with_extension("faults");
    let mut host = Taskbay::run("postgres://127.0.0.1:1/nowhere", folder.path())
        .env("FAULT_FILE_OF_TASKBAYS_TESTS", &faults)
        .env("RUST_BACKTRACE", "0")
        .spawn();
    host.event("folder_ready", |_| true).await;
    host.event("database_trouble", |_| true).await;
    fs::write(&faults, "panic tasks folder").expect("ask for a fault");
    assert_eq!(host.ended().await.code(), Some(70));
    fs::remove_file(&faults).expect("remove the file");
    assert_eq!(host.events("part_failed").first().map(|line| &line["part"]), Some(&json!("tasks folder")));
}
