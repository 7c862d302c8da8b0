//! Jobs that fail: for a while, for good, by a panic, by their time limit.

use serde_json::json;

use super::workplace;
use crate::harness::program::{Taskbay, of_job};

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
async fn a_job_that_ignores_its_timeout_is_stopped_and_says_so() {
    let (database, folder) = workplace().await;
    let id = database.add("too_slow", json!({})).await;
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());
    let error = database.job(id).await.last_error.unwrap();
    assert!(error.contains("200ms"), "{error}");
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
