//! Results that the database does not take.

use rustix::process::Signal;

use super::*;

/// Adds a job to which another table has a foreign key.
async fn add_with_invoice(database: &TestDatabase, checked: &str) -> i64 {
    let table = "create table invoices (job_id bigint references graphile_worker._private_jobs (id)";
    database.execute(&format!("{table} {checked})")).await;
    let add = "insert into invoices select id from graphile_worker.add_job('echo', '{\"n\": 0}') returning job_id";
    database.id_of(add, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_deleted_is_held_back_and_all_others_are_stored() {
    for lane in ["marked", "express"] {
        let place = Workplace::new().await;
        let mut host = place.host(lane).await;
        let first = add_with_invoice(&place.database, "").await;
        let others = place.add_many(300, "{}").await;
        let refused = host.event("result_refused", of_job(first)).await;
        assert_eq!((&refused["level"], &refused["task"]), (&json!("WARN"), &json!("echo")), "{refused}");
        assert!(refused["message"].as_str().is_some_and(|text| text.contains("invoices_job_id_fkey")), "{refused}");
        place.wait_until_left(&[first]).await;

        // Whoever looks sees why, and that the job is not to be run again.
        let shown = text(&place.jobs(&["show", &first.to_string()]));
        assert!(shown.contains("running") && shown.contains("invoices_job_id_fkey"), "{shown}");

        // It keeps neither others nor the stop waiting, and nobody runs it again.
        place.add_many(50, "{}").await;
        place.wait_until_left(&[first]).await;
        host.signal(Signal::TERM);
        host.ended_by(Signal::TERM).await;
        let left = host.event("result_left", of_job(first)).await;
        assert!(left["message"].as_str().is_some_and(|text| text.contains("invoices_job_id_fkey")), "{left}");
        let job = place.database.only_job().await;
        assert_eq!((job.locked_by, job.attempts), (None, job.max_attempts), "{lane}");
        assert!(job.last_error.is_some_and(|error| error.contains("invoices_job_id_fkey")), "{lane}");
        let runs = place.ledger.runs();
        assert_eq!(runs[&first], 1, "{lane}: it ran once");
        assert!(others.iter().all(|id| runs[id] == 1), "{lane}: so did all others");
        assert_eq!(host.events("result_refused").iter().filter(|line| line["level"] == "WARN").count(), 1, "{lane}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_stored_when_the_database_takes_it() {
    for lane in ["marked", "express"] {
        let place = Workplace::new().await;
        let host = place.host(lane).await;
        refuse(&place.database, "delete", "(old.payload->>'n')::int = 7").await;
        let jobs = place.add_many(20, "{}").await;
        host.event("result_refused", of_job(jobs[6])).await;
        place.wait_until_left(&[jobs[6]]).await;
        allow(&place.database, "delete").await;
        host.event("result_stored", of_job(jobs[6])).await;
        place.database.wait_until_no_jobs().await;
        host.stop().await;
        assert_eq!(place.ledger.runs()[&jobs[6]], 1, "{lane}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_whose_job_was_deleted_is_not_said_to_be_stored() {
    let place = Workplace::new().await;
    let host = place.host("marked").await;
    refuse(&place.database, "delete", "(old.payload->>'n')::int = 7").await;
    let jobs = place.add_many(20, "{}").await;
    host.event("result_refused", of_job(jobs[6])).await;
    place.wait_until_left(&[jobs[6]]).await;
    place.database.execute("truncate graphile_worker._private_jobs").await;
    let line = host.event("verdict_overruled", of_job(jobs[6])).await;
    let message = line["message"].as_str().expect("text");
    assert!(
        line["task"].is_string() && message.contains("is not stored") && message.contains("it was deleted"),
        "{line}"
    );
    assert!(host.events("result_stored").is_empty(), "nothing was stored");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_that_is_checked_at_the_commit_is_no_different() {
    for lane in ["marked", "express"] {
        let place = Workplace::new().await;
        let mut host = place.host(lane).await;
        let bad = add_with_invoice(&place.database, "deferrable initially deferred").await;
        place.add_many(100, "{}").await;
        host.event("result_refused", of_job(bad)).await;
        place.wait_until_left(&[bad]).await;
        host.signal(Signal::TERM);
        host.ended_by(Signal::TERM).await;
        assert!(place.ledger.runs().values().all(|runs| *runs == 1), "{lane}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_cannot_be_stored_holds_up_neither_others_nor_its_queue() {
    for lane in ["marked", "express"] {
        let place = Workplace::new().await;
        let mut host = place.host(lane).await;
        refuse(&place.database, "update", "new.last_error like '%as asked%' and new.locked_at is null").await;
        let fails = json!({"n": 1, "fail_until": 1});
        let bad = match lane {
            "express" => place.database.add("echo", fails).await,
            _ => place.database.add_to_queue("echo", fails, "line").await,
        };
        let next = place.database.add_to_queue("echo", json!({"n": 2}), "line").await;
        place.add_many(40, "{}").await;
        host.event("result_refused", of_job(bad)).await;
        place.wait_until_left(&[bad]).await;
        assert_eq!(place.ledger.runs()[&next], 1, "{lane}: the next one of its queue");
        assert_eq!(place.database.locked_queues().await, 0);
        host.signal(Signal::TERM);
        host.ended_by(Signal::TERM).await;
        host.event("result_left", of_job(bad)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_works_once_ends() {
    for lane in ["marked", "express"] {
        let place = Workplace::new().await;
        let jobs = place.add_many(200, "{}").await;
        refuse(&place.database, "delete", "(old.payload->>'n')::int in (100, 101)").await;
        let mut host = place.command().args(["--claim", lane]).arg("--once").spawn();
        let status = host.ended().await;
        assert!(status.success(), "{lane}: {status:?}");
        assert_eq!(place.left().await, jobs[99..101], "{lane}");
        assert_eq!(host.events("result_left").len(), 2, "{lane}");
        assert!(place.ledger.runs().values().all(|runs| *runs == 1), "{lane}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_result_is_stored_and_the_host_still_stops() {
    let place = Workplace::new().await;
    let mut host = place.host("marked").await;
    refuse(&place.database, "delete", "true").await;
    let jobs = place.add_many(300, "{}").await;
    for id in &jobs {
        host.event("result_refused", of_job(*id)).await;
    }
    host.signal(Signal::TERM);
    host.ended_by(Signal::TERM).await;
    assert!(place.database.jobs().await.iter().all(|job| job.locked_by.is_none() && job.attempts == job.max_attempts));
    assert!(place.ledger.runs().values().all(|runs| *runs == 1));
}

/// What is held back is kept in memory and tried again one by one: a host that cannot store anything must not run the whole backlog.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_claims_nothing_while_too_many_results_are_refused() {
    let place = Workplace::new().await;
    refuse(&place.database, "delete", "true").await;
    // Each job takes a while, so that few are claimed ahead.
    let add = "select count(graphile_worker.add_job('echo', '{\"sleep_ms\": 20}')) from generate_series(1, 3000)";
    place.database.id_of(add, &[]).await;
    let mut host = place.command().args(["--claim", "marked"]).spawn();
    let paused = host.event("claims_paused", |_| true).await;
    assert!(paused["message"].as_str().is_some_and(|text| text.contains("says the audit")), "{paused}");
    let untouched = "select count(*) from graphile_worker._private_jobs where attempts = 0 and locked_at is null";
    let waiting = place.database.id_of(untouched, &[]).await;
    assert!((1..=2_000).contains(&waiting), "{waiting}");
    // It goes on when results are stored again, each after a wait of up to a minute.
    allow(&place.database, "delete").await;
    until("all results are stored", async || match place.left().await.len() {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
    assert!(place.ledger.runs().values().all(|runs| *runs == 1));
    host.signal(Signal::TERM);
    host.ended_by(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_works_once_ends_when_too_many_results_are_refused() {
    let place = Workplace::new().await;
    refuse(&place.database, "delete", "true").await;
    let add = "select count(graphile_worker.add_job('echo', '{\"sleep_ms\": 20}')) from generate_series(1, 3000)";
    place.database.id_of(add, &[]).await;
    let mut host = place.command().args(["--claim", "marked", "--once"]).spawn();
    host.ended().await;
    assert_eq!(host.events("claims_paused").len(), 1);
    let untouched = "select count(*) from graphile_worker._private_jobs where attempts = 0 and locked_at is null";
    assert!(place.database.id_of(untouched, &[]).await > 0);
}
