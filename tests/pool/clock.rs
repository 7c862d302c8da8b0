//! Whose clock says which jobs are due.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use taskbay::config::{Clock, TimeSource};

use super::*;

/// 2021-01-01T00:00:00Z
const NEW_YEAR: u64 = 1_609_459_200;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

async fn add_due_at(database: &TestDatabase, seconds: u64) -> i64 {
    database.id_of("select (graphile_worker.add_job('nothing', run_at := $1)).id", &[&at(seconds)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_the_process_decides_where_it_was_asked_to() {
    let database = TestDatabase::installed().await;
    let id = add_due_at(&database, NEW_YEAR + 60).await;
    let clock = Arc::new(AtomicU64::new(NEW_YEAR));
    let look = Arc::clone(&clock);
    let settings = WorkerSettings {
        clock: Clock::Process,
        time: TimeSource::new(move || at(look.load(Ordering::Relaxed))),
        ..WorkerSettings::default()
    };
    Bench::once(&database, settings.clone()).await;
    assert_eq!(database.job(id).await.attempts, 0, "due by the database's clock, but not by that of the process");
    clock.store(NEW_YEAR + 61, Ordering::Relaxed);
    Bench::once(&database, settings).await;
    database.wait_until_no_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_the_database_decides_otherwise() {
    let database = TestDatabase::installed().await;
    add_due_at(&database, NEW_YEAR + 60).await;
    let settings = WorkerSettings { time: TimeSource::new(|| at(NEW_YEAR)), ..WorkerSettings::default() };
    Bench::once(&database, settings).await;
    database.wait_until_no_jobs().await;
}

/// Node workers judge the age of locks by the database's clock: a lock of 2021 would be taken away at once.
#[tokio::test(flavor = "multi_thread")]
async fn locks_have_the_time_of_the_database_in_any_case() {
    let database = TestDatabase::installed().await;
    database.add_to_queue("sleep", serde_json::json!({"ms": 600_000}), "q").await;
    database.execute("update graphile_worker._private_jobs set run_at = '2020-01-01'").await;
    let settings =
        WorkerSettings { clock: Clock::Process, time: TimeSource::new(|| at(NEW_YEAR)), ..WorkerSettings::default() };
    let mut bench = Bench::start(&database, Mode::Continuous, settings).await;
    bench.event(|event| matches!(event, Event::JobStarted { .. }).then_some(())).await;
    let young = "select count(*) from (
        select locked_at from graphile_worker._private_jobs
        union all select locked_at from graphile_worker._private_job_queues
      ) as locks where locked_at > now() - interval '1 hour'";
    assert_eq!(database.id_of(young, &[]).await, 2);
    bench.stop.now.cancel();
    bench.stop().await;
}
