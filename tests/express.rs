//! The express lane at work: who takes it, what becomes of those that take long, and what is left when something dies.

use std::collections::HashSet;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{
    jobs::JobRow,
    program::{Running, of_job},
    wait::until,
    workplace::{FEW_SLOTS, Workplace},
};

/// A place whose host works `echo` by the express lane.
async fn express(args: &[&str]) -> (Workplace, Running) {
    let place = Workplace::new().await;
    place.count_marks().await;
    let host = place.command().args(args).ready().await;
    place.wait_until_express().await;
    (place, host)
}

#[tokio::test(flavor = "multi_thread")]
async fn short_jobs_are_not_marked_and_marked_ones_are_where_that_is_asked_for() {
    let (_express, host) = express(&FEW_SLOTS).await;
    host.stop().await;

    let place = Workplace::new().await;
    place.count_marks().await;
    let host = place.command().args(["--claim", "marked", "--log-level", "info"]).ready().await;
    let before = place.marks().await;
    for _ in 0..4 {
        place.add_many(1_000, "{}").await;
        place.database.wait_until_no_jobs().await;
    }
    host.stop().await;
    assert!(place.marks().await - before >= 4_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_with_a_key_or_a_queue_are_always_marked() {
    let (place, host) = express(&FEW_SLOTS).await;
    let before = place.marks().await;
    let sql = "select count(graphile_worker.add_job('echo', '{}', job_key := 'key ' || n)) +
                      count(graphile_worker.add_job('echo', '{}', queue_name := 'queue ' || n % 7))
               from generate_series(1, 500) as n";
    place.database.id_of(sql, &[]).await;
    place.database.wait_until_no_jobs().await;
    host.stop().await;
    assert!(place.marks().await - before >= 1_000);
    assert_eq!(place.database.locked_queues().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_long_is_marked_and_holds_nobody_else_up() {
    let (place, mut host) = express(&FEW_SLOTS).await;
    // One transaction takes them all.
    let sql = "select max(job.id) from graphile_worker.add_jobs(array(
                 select row('echo', json_build_object('n', n, 'sleep_ms', case when n = 5 then 120000 else 0 end),
                            null, now(), 25, null, 0, null)::graphile_worker.job_spec
                 from generate_series(1, 10) as n)) as job where job.payload->>'n' = '5'";
    let long = place.database.id_of(sql, &[]).await;
    host.event("job_started", of_job(long)).await;
    let job = until("only that one is left, and it is marked", async || {
        let mut jobs = place.database.jobs().await;
        if jobs.len() == 1 && jobs[0].locked_by.is_some() { Ok(jobs.remove(0)) } else { Err(jobs.len()) }
    })
    .await;
    assert_eq!((job.id, job.attempts), (long, 1));
    // It goes on as any job that is marked.
    host.signal(Signal::TERM);
    host.event("stopping", |_| true).await;
    host.signal(Signal::TERM);
    host.ended_by(Signal::TERM).await;
    let job = place.database.job(long).await;
    assert_eq!((job.attempts, job.locked_by), (0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_count_and_are_tried_again_as_always() {
    let (place, host) = express(&FEW_SLOTS).await;
    let id = place.database.add("echo", json!({"fail_until": 1})).await;
    host.event("job_failed", of_job(id)).await;
    let job = place.database.job(id).await;
    assert_eq!((job.attempts, job.last_error.as_deref(), job.locked_by), (1, Some("failed as asked"), None));
    let waits = place.database.seconds_until_run(id).await;
    assert!(waits > 0.0 && waits <= 1_f64.exp(), "{waits} s");
    place
        .database
        .execute("select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), now())")
        .await;
    place.database.execute("notify \"jobs:insert\", '{\"count\": 1}'").await;
    host.event("job_done", of_job(id)).await;
    let attempts: Vec<i16> =
        place.ledger.entries().iter().filter(|entry| entry.job == id).map(|entry| entry.attempt).collect();
    assert_eq!(attempts, [1, 2]);
}

fn begun_and_free(place: &Workplace, jobs: &[JobRow]) -> bool {
    let began: HashSet<i64> = place.ledger.entries().iter().map(|entry| entry.job).collect();
    jobs.iter().any(|job| began.contains(&job.id) && job.locked_by.is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_leaves_its_short_jobs_free() {
    const JOBS: usize = 4_000;
    let place = Workplace::new().await;
    place.count_marks().await;
    let mut added = HashSet::new();
    let mut kills = 0;
    loop {
        let mut host = place.command().args(FEW_SLOTS).ready().await;
        place.wait_until_express().await;
        added.extend(place.add_many(JOBS, r#"{"announce": true}"#).await);
        // It stands still while the test looks, so that it cannot be done before it is killed.
        until("a job has begun and its transaction has not ended", async || {
            host.signal(Signal::STOP);
            let jobs = place.database.jobs().await;
            if jobs.is_empty() || begun_and_free(&place, &jobs) {
                return Ok(());
            }
            host.signal(Signal::CONT);
            Err(jobs.len())
        })
        .await;
        host.signal(Signal::KILL);
        host.ended().await;
        kills += 1;
        place.database.wait_until_others_rest().await;
        let jobs = place.database.jobs().await;
        let free = begun_and_free(&place, &jobs);
        place.database.execute("update graphile_worker._private_jobs set locked_by = null, locked_at = null").await;
        let host = place.command().args(["--log-level", "info"]).ready().await;
        place.database.wait_until_no_jobs().await;
        host.stop().await;
        if free {
            break;
        }
        // The commit was on its way already, or all was done.
        assert!(kills < 20, "of {} jobs, none that had begun is free", jobs.len());
    }
    let runs = place.ledger.runs();
    assert!(added.iter().all(|job| runs.contains_key(job)), "none was lost");
    let twice = runs.values().filter(|runs| **runs > 1).count();
    assert!(twice <= 2_400 * kills, "{twice} ran again: no more than were under way");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_lose_nothing_and_repeat_nothing() {
    let (place, host) = express(&["--jobs", "10", "--log-level", "info", "--poll-interval", "200ms"]).await;
    let before = place.ledger.entries().len();
    place.add_many(20_000, r#"{"sleep_ms": 1}"#).await;
    for round in 1..=10 {
        place.ledger.wait_for(before + round * 1_500).await;
        place.database.terminate_others().await;
    }
    let free = "select count(*) from graphile_worker._private_jobs where locked_by is null";
    until("it goes on after each of them", async || match place.database.id_of(free, &[]).await {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
    host.stop().await;
    let runs = place.ledger.runs();
    // A claim that was cut off may have marked jobs of which nobody heard.
    let locked = place.database.jobs().await.len();
    assert!(locked <= 10 * 1_000, "{locked} are locked");
    assert_eq!(runs.len() + locked, before + 20_000, "none was lost");
    assert!(
        runs.values().all(|runs| *runs == 1),
        "what was done when the connection was lost is stored on the next one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_the_host_down_uses_up_its_attempts() {
    let place = Workplace::new().await;
    let sql = "select (graphile_worker.add_job('echo', '{\"abort\": true}', max_attempts := 3)).id";
    let id = place.database.id_of(sql, &[]).await;
    let mut deaths = 0;
    while place.database.job(id).await.attempts < 3 {
        deaths += 1;
        assert!(deaths <= 100, "it is tried for ever");
        place.add_many(60, "{}").await;
        let mut host = place.command().args(["--in-process", "--log-level", "info"]).spawn();
        assert!(!host.ended().await.success());
        // As the one does who looks after locks of the dead.
        place.database.execute("update graphile_worker._private_jobs set locked_by = null, locked_at = null").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_in_queues_are_found_among_many_short_ones() {
    let (place, host) = express(&["--jobs", "2", "--log-level", "info", "--poll-interval", "1h"]).await;
    let before = place.ledger.entries().len();
    let sql = "select count(graphile_worker.add_job('echo', '{\"n\": -1}', queue_name := 'serial')) from generate_series(1, 5)";
    place.add_many(1_000, "{}").await;
    place.database.id_of(sql, &[]).await;
    place.add_many(20_000, "{}").await;
    place.database.wait_until_no_jobs().await;
    host.stop().await;
    let entries = place.ledger.entries().split_off(before);
    let last = entries.iter().rposition(|entry| entry.queue.is_some()).expect("they ran");
    assert!(last < entries.len() / 2, "jobs in queues wait for those behind them: {last} of {}", entries.len());
}

/// Jobs that no slot takes before the transaction ends are free again with the commit, and the claim on the same trip, or the
/// other line's, finds them. Such a claim was once marked and thrown away: the jobs stayed locked for as long as the host lived.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_left_behind_by_a_transaction_are_claimed_again_at_once() {
    // Only what the host itself remembers can bring them before the next hour.
    let (place, host) = express(&["--log-level", "info", "--poll-interval", "1h", "--jobs", "1"]).await;
    let before = place.ledger.entries().len();
    // Now and then, a long one holds up those that were locked with it. It is not enough to make the task a long one.
    let sql = "select count(*) from graphile_worker.add_jobs(array(
       select row('echo', json_build_object('n', n, 'sleep_ms', case when n % 150 = 0 then 35 else 0 end), null, now(), 25,
                  null, 0, null)::graphile_worker.job_spec
       from generate_series(1, 1000) as n))";
    let (mut rounds, mut by_express) = (0, 0);
    until("ten rounds by the express lane", async || {
        let marks = place.marks().await;
        place.database.id_of(sql, &[]).await;
        place.database.wait_until_no_jobs().await;
        rounds += 1;
        // A busy machine makes short jobs long, and these are marked.
        by_express += usize::from(place.marks().await - marks < 500);
        if by_express == 10 { Ok(()) } else { Err(rounds) }
    })
    .await;
    host.stop().await;
    let runs = place.ledger.runs();
    assert_eq!(runs.len(), before + rounds * 1_000);
    assert!(runs.values().all(|runs| *runs == 1), "each ran once");
}
