//! Jobs that the database does not let be claimed.

use rustix::process::Signal;

use super::*;

/// For a job with this number: nobody may mark it.
async fn refuse_claims(database: &TestDatabase, when: &str) {
    refuse(database, "update", &format!("new.locked_at is not null and ({when})")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_claimed_is_passed_and_named_and_runs_when_it_can_be() {
    let place = Workplace::new().await;
    refuse_claims(&place.database, "(new.payload->>'n')::int in (3, 150)").await;
    let jobs = place.add_many(300, "{}").await;
    let mut host = place.host("marked").await;
    for bad in [jobs[2], jobs[149]] {
        let refused = host.event("claim_refused", of_job(bad)).await;
        assert_eq!((&refused["level"], &refused["task"]), (&json!("WARN"), &json!("echo")), "{refused}");
        assert!(refused["message"].as_str().is_some_and(|text| text.contains("says the audit")), "{refused}");
    }
    place.wait_until_left(&[jobs[2], jobs[149]]).await;
    let shown = text(&place.jobs(&["show", &jobs[2].to_string()]));
    assert!(shown.contains("says the audit"), "{shown}");
    // Later jobs are worked as well.
    place.add_many(2, "{}").await;
    place.wait_until_left(&[jobs[2], jobs[149]]).await;
    allow(&place.database, "update").await;
    place.database.wait_until_no_jobs().await;
    host.signal(Signal::TERM);
    host.ended_by(Signal::TERM).await;
    assert!(place.ledger.runs().values().all(|runs| *runs == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_queue_and_in_the_express_lane_as_well() {
    let place = Workplace::new().await;
    let mut host = place.host("express").await;
    refuse_claims(&place.database, "new.payload->>'bad' = 'yes'").await;
    // It runs before it is marked, if it is taken for short.
    let slow = place.database.add("echo", json!({"n": 3, "bad": "yes", "sleep_ms": 300})).await;
    host.event("claim_refused", of_job(slow)).await;
    let bad = place.database.add_to_queue("echo", json!({"n": 1, "bad": "yes"}), "line").await;
    let behind = place.database.add_to_queue("echo", json!({"n": 2}), "line").await;
    let keyed = place
        .database
        .id_of("select (graphile_worker.add_job('echo', '{\"n\": 4, \"bad\": \"yes\"}', job_key := 'k')).id", &[])
        .await;
    place.add_many(100, "{}").await;
    host.event("claim_refused", of_job(bad)).await;
    host.event("claim_refused", of_job(keyed)).await;
    // The job behind it in its queue goes on, and so does the next one.
    let left = until("the others are done", async || {
        let left = place.left().await;
        if left.iter().all(|id| [bad, slow, keyed].contains(id)) { Ok(left) } else { Err(left) }
    })
    .await;
    assert!(left.contains(&bad) && left.contains(&keyed));
    assert_eq!(place.ledger.runs()[&behind], 1);
    // What cannot be marked is not run again and again by the lane that does not mark.
    host.event("claim_refused", |line| line["job"] == slow && line["level"] == "DEBUG").await;
    assert!(place.ledger.runs().get(&slow).is_none_or(|runs| *runs == 1), "{:?}", place.ledger.runs()[&slow]);
    host.signal(Signal::TERM);
    host.ended_by(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn once_ends_and_a_refusal_of_everything_does_not_loop_hot() {
    let place = Workplace::new().await;
    let jobs = place.add_many(100, "{}").await;
    refuse_claims(&place.database, "(new.payload->>'n')::int = 50").await;
    let mut host = place.command().args(["--claim", "marked"]).arg("--once").spawn();
    assert!(host.ended().await.success());
    assert_eq!(place.database.only_job().await.id, jobs[49]);
    allow(&place.database, "update").await;

    // Nothing can be claimed at all: many tries would be many lines of the server's log.
    refuse_claims(&place.database, "true").await;
    place.add_many(30, "{}").await;
    let host = place.host("marked").await;
    host.event("claim_refused", of_job(jobs[49])).await;
    allow(&place.database, "update").await;
    place.database.wait_until_no_jobs().await;
    host.stop().await;
}
