//! Other statements over many rows that one row could block.

use std::time::Duration;

use taskbay::queue::{ClaimedJob, Conditions};

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

/// More of them than one takeover tries.
#[tokio::test]
async fn many_jobs_that_refuse_do_not_keep_another_one_of_a_dead_host_waiting_for_good() {
    let place = Workplace::new().await;
    let database = &place.database;
    place.add_many(400, "{}").await;
    database
        .execute("update graphile_worker._private_jobs set locked_by = 'taskbay-live-gone', locked_at = now()")
        .await;
    refuse(database, "update", "(new.payload->>'n')::int < 400 and new.locked_at is null").await;
    let ours = "taskbay-live-ours";
    let _life = database.database().show_life(ours).await.expect("a connection").expect("nobody takes it for dead");
    let session = database.database().session().await.expect("a session");
    let dead = session.unseen_owners().await.expect("a search").owners;
    for _ in 0..40 {
        if session.release_dead(ours, &dead).await.expect("a takeover").jobs == 1 {
            return;
        }
    }
    panic!("no takeover has reached the last job");
}

/// Each host that meets the job notes the reason, and so does each start of a host.
#[tokio::test]
async fn a_reason_that_is_noted_again_is_not_written_twice() {
    let place = Workplace::new().await;
    let job = place.add_many(1, "{}").await[0];
    let session = place.database.database().session().await.expect("connect");
    for _ in 0..3 {
        session.note_refused_claim(job, "cannot be claimed").await.expect("note it");
    }
    assert_eq!(place.database.only_job().await.last_error.as_deref(), Some("cannot be claimed"));

    lock_for_hours(&place.database, 1).await;
    let claim = ClaimedJob { id: job, attempt: 1, keyed: false, job_queue_id: None, locked_at: None };
    for _ in 0..3 {
        session.note_refused_result("pool-1", &claim, "cannot be stored").await.expect("note it");
    }
    let noted = place.database.only_job().await.last_error;
    assert_eq!(noted.as_deref(), Some("cannot be stored\n\nbefore that: cannot be claimed"));
}

/// When the answer is lost, the queue is freed once more, and by then the next job of the queue may run.
#[tokio::test]
async fn a_queue_that_was_claimed_again_is_not_freed_for_the_sake_of_an_earlier_job() {
    let place = Workplace::new().await;
    let database = &place.database;
    for n in 1..=2 {
        database.add_to_queue("echo", json!({ "n": n }), "line").await;
    }
    let session = database.database().session().await.expect("connect");
    let tasks = session.task_ids(&["echo"]).await.expect("ask for the ids");
    let claim = async || {
        let nothing = Conditions { forbidden_flags: &[], now: None, left_out: &[] };
        let jobs = session.get_jobs("pool-1", &tasks, 10, nothing).await.expect("claim");
        assert_eq!(jobs.len(), 1, "the first job of the queue that is free");
        ClaimedJob::of(&jobs[0])
    };
    let first = claim().await;
    session.free_queue("pool-1", &first).await.expect("free the queue");
    assert_eq!(database.locked_queues().await, 0);
    database.database().reset_cursors();
    let second = claim().await;
    assert_eq!(first.job_queue_id, second.job_queue_id);
    session.free_queue("pool-1", &first).await.expect("free the queue once more");
    assert_eq!(database.locked_queues().await, 1, "the second job has it");
    // A renewal moves the times of both locks, each in its own way.
    let older = "set locked_at = locked_at - interval '1 hour'";
    database.execute(&format!("update graphile_worker._private_jobs {older} where id = {}", second.id)).await;
    database.execute(&format!("update graphile_worker._private_job_queues {older}")).await;
    session.refresh_locked("pool-1", Duration::from_secs(60)).await.expect("renew the locks");
    let second = ClaimedJob { locked_at: second.locked_at.map(|time| time - Duration::from_secs(60 * 60)), ..second };
    session.free_queue("pool-1", &second).await.expect("free the queue");
    assert_eq!(database.locked_queues().await, 0, "a renewed lock is the same claim's");
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
