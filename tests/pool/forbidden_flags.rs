//! Jobs with certain flags are left to others.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use taskbay::config::ForbiddenFlags;

use super::*;

async fn add(database: &TestDatabase, flags: &[&str]) -> i64 {
    database.id_of("select (graphile_worker.add_job('nothing', flags := $1)).id", &[&flags]).await
}

async fn left(database: &TestDatabase) -> Vec<(i64, i16)> {
    database.jobs().await.into_iter().map(|job| (job.id, job.attempts)).collect()
}

#[tokio::test]
async fn flags_are_stored_as_an_object_of_trues() {
    let database = TestDatabase::installed().await;
    let id = add(&database, &["a", "b", "a"]).await;
    let sql = "select flags from graphile_worker.jobs where id = $1";
    let flags: Value = database.client().await.query_one(sql, &[&id]).await.expect("read the flags").get(0);
    assert_eq!(flags, json!({"a": true, "b": true}));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_with_a_forbidden_flag_stay_untouched_whether_it_is_fixed_or_asked_for() {
    let database = TestDatabase::installed().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let function = ForbiddenFlags::asked(move || {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(vec!["d".to_owned()])
    });
    let later = ForbiddenFlags::asked(|| async {
        tokio::task::yield_now().await;
        vec!["d".to_owned(), "e".to_owned()]
    });
    for forbidden in [ForbiddenFlags::from(vec!["d".to_owned()]), function, later] {
        let flagged = add(&database, &["c", "d"]).await;
        add(&database, &["c"]).await;
        Bench::once(&database, WorkerSettings { forbidden_flags: forbidden, ..WorkerSettings::default() }).await;
        assert_eq!(left(&database).await, [(flagged, 0)]);
        database.execute("delete from graphile_worker._private_jobs").await;
    }
    assert!(asked.load(Ordering::Relaxed) >= 2, "before each claim");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_jobs_run_where_nothing_that_they_have_is_forbidden() {
    let database = TestDatabase::installed().await;
    let other = || vec!["z".to_owned()];
    for forbidden in [
        ForbiddenFlags::default(),
        other().into(),
        ForbiddenFlags::asked(|| async { Vec::new() }),
        ForbiddenFlags::asked(move || std::future::ready(other())),
    ] {
        add(&database, &["c", "d"]).await;
        add(&database, &[]).await;
        let sql = "select (graphile_worker.add_job('nothing', queue_name := 'q', flags := array['q'])).id";
        database.id_of(sql, &[]).await;
        Bench::once(&database, WorkerSettings { forbidden_flags: forbidden, ..WorkerSettings::default() }).await;
        assert_eq!(left(&database).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_of_jobs_in_queues_count_too_and_the_queue_stays_free() {
    let database = TestDatabase::installed().await;
    let sql = "select (graphile_worker.add_job('nothing', queue_name := 'q', flags := array['gpu'])).id";
    let flagged = database.id_of(sql, &[]).await;
    database.add_to_queue("nothing", json!({}), "q").await;
    let forbidden_flags = vec!["gpu".to_owned()].into();
    Bench::once(&database, WorkerSettings { forbidden_flags, ..WorkerSettings::default() }).await;
    assert_eq!(left(&database).await, [(flagged, 0)], "the one behind it in the queue was not held up");
    assert_eq!(database.locked_queues().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_as_soon_as_its_flag_is_not_forbidden_any_more() {
    let database = TestDatabase::installed().await;
    let forbidden = Arc::new(AtomicBool::new(true));
    let look = Arc::clone(&forbidden);
    let flags = ForbiddenFlags::asked(move || {
        let flags = if look.load(Ordering::Relaxed) { vec!["slow".to_owned()] } else { Vec::new() };
        std::future::ready(flags)
    });
    let flagged = add(&database, &["slow"]).await;
    let mut bench =
        Bench::start(&database, Mode::Continuous, WorkerSettings { forbidden_flags: flags, ..polling() }).await;
    let plain = add(&database, &[]).await;
    let done = |event| if let Event::JobDone { job, .. } = event { Some(job.id) } else { None };
    assert_eq!(bench.event(done).await, plain);
    forbidden.store(false, Ordering::Relaxed);
    assert_eq!(bench.event(done).await, flagged);
    bench.stop().await;
}
