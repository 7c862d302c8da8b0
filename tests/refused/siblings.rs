//! Other statements over many rows that one row could block.

use std::time::Duration;

use taskbay::queue::ClaimedJob;

use super::*;

/// Jobs that another worker has locked for so many hours.
async fn lock_for_hours(database: &TestDatabase, hours: u32) {
    database
        .execute(&format!(
            "update graphile_worker._private_jobs set locked_by = 'pool-1', locked_at = now() - interval '{hours} hours',
             attempts = 1"
        ))
        .await;
}

#[tokio::test]
async fn locks_that_nobody_lifted_are_lifted_around_a_job_that_refuses() {
    let place = Workplace::new().await;
    let jobs = place.add_many(40, "{}").await;
    lock_for_hours(&place.database, 5).await;
    refuse(&place.database, "update", "(new.payload->>'n')::int = 5 and new.locked_at is null").await;
    let session = place.database.database().session().await.expect("connect");
    let unlocked = session.reset_locked().await.expect("lift the locks");
    assert_eq!(unlocked.jobs, 39);
    let held = place.database.jobs().await.into_iter().filter(|job| job.locked_by.is_some());
    assert_eq!(held.map(|job| job.id).collect::<Vec<_>>(), [jobs[4]]);
}

#[tokio::test]
async fn locks_are_renewed_around_a_job_that_refuses() {
    let place = Workplace::new().await;
    place.add_many(40, "{}").await;
    lock_for_hours(&place.database, 1).await;
    refuse(&place.database, "update", "(new.payload->>'n')::int = 5").await;
    let session = place.database.database().session().await.expect("connect");
    let renewed = session.refresh_locked("pool-1", Duration::from_secs(60)).await.expect("renew the locks");
    assert_eq!(renewed, 39);
}

#[tokio::test]
async fn a_clean_up_deletes_around_a_job_that_refuses() {
    let place = Workplace::new().await;
    let jobs = place.add_many(40, "{}").await;
    place.database.execute("update graphile_worker._private_jobs set attempts = max_attempts").await;
    refuse(&place.database, "delete", "(old.payload->>'n')::int = 5").await;
    let output =
        Taskbay::command("cleanup").env("DATABASE_URL", place.database.url()).arg("DELETE_PERMAFAILED_JOBS").output();
    assert!(text(&output).contains("39"), "{}", text(&output));
    assert!(text(&output).contains("says the audit"), "{}", text(&output));
    assert_eq!(place.database.only_job().await.id, jobs[4]);
}

#[tokio::test]
async fn an_administrator_changes_all_jobs_but_the_one_that_refuses() {
    let place = Workplace::new().await;
    let jobs = place.add_many(40, "{}").await;
    refuse(&place.database, "delete", "(old.payload->>'n')::int = 5").await;
    let output = place.jobs(&["complete", "--task", "echo", "--yes"]);
    assert!(text(&output).contains("39"), "{}", text(&output));
    assert!(text(&output).contains(&format!("job {}", jobs[4])) && text(&output).contains("says the audit"));
    assert_eq!(place.database.only_job().await.id, jobs[4]);
}

#[tokio::test]
async fn a_worker_is_unlocked_around_a_job_that_refuses() {
    let place = Workplace::new().await;
    let jobs = place.add_many(40, "{}").await;
    lock_for_hours(&place.database, 1).await;
    refuse(&place.database, "update", "(new.payload->>'n')::int = 5").await;
    let output = place.jobs(&["unlock", "pool-1"]);
    assert!(text(&output).contains("39 jobs") && text(&output).contains("says the audit"), "{}", text(&output));
    let held = place.database.jobs().await.into_iter().filter(|job| job.locked_by.is_some());
    assert_eq!(held.map(|job| job.id).collect::<Vec<_>>(), [jobs[4]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_a_dead_host_are_released_around_one_that_refuses() {
    let place = Workplace::new().await;
    let mut first = place.host("marked").await;
    let mut jobs = Vec::new();
    for n in 1..=3 {
        jobs.push(place.database.add("echo", json!({"n": n, "sleep_ms": 600_000})).await);
        first.event("job_started", of_job(jobs[n - 1])).await;
    }
    refuse(&place.database, "update", "(new.payload->>'n')::int = 2 and new.locked_at is null").await;
    first.signal(rustix::process::Signal::KILL);
    first.ended().await;
    let second = place.host("marked").await;
    let refused = second.event("lock_refused", of_job(jobs[1])).await;
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("says the audit")), "{refused}");
    second.event("job_started", of_job(jobs[0])).await;
    second.event("job_started", of_job(jobs[2])).await;
}

/// Only what a row is to blame for is taken apart.
#[tokio::test]
async fn a_refusal_is_told_from_a_database_in_a_state_in_which_nothing_goes() {
    let place = Workplace::new().await;
    let job = place.add_many(1, "{}").await[0];
    lock_for_hours(&place.database, 1).await;
    let claim = ClaimedJob { id: job, attempt: 1, keyed: false, job_queue_id: None, locked_at: None };
    let complete = async || {
        let session = place.database.database().session().await.expect("connect");
        session.complete_jobs("pool-1", &[claim]).await.expect_err("it is refused")
    };

    refuse(&place.database, "delete", "true").await;
    assert!(complete().await.is_refusal());
    // A mistake in a trigger may be one for some rows.
    place
        .database
        .execute(
            "create or replace function refuse_delete() returns trigger language plpgsql as
             $$ begin perform no_such_function(old.id); return old; end $$",
        )
        .await;
    assert!(complete().await.is_refusal());
    allow(&place.database, "delete").await;

    place.database.execute("alter schema graphile_worker rename to away").await;
    assert!(!complete().await.is_refusal(), "the schema is missing");
}
