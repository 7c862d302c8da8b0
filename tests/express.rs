//! The express lane at work: who takes it, what becomes of those that take long, and what is left when something dies.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{
    ledger::Ledger,
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{DEADLINE, Running, Taskbay},
};

/// As many as show a task to be short, and some more.
const WARM_UP: usize = 60;

struct Workplace {
    database: TestDatabase,
    folder: tempfile::TempDir,
    ledger: Ledger,
}

impl Workplace {
    async fn new() -> Self {
        let folder = tasks_folder();
        install_plugin(folder.path(), "misbehaving");
        Self { database: TestDatabase::installed().await, folder, ledger: Ledger::new() }
    }

    fn command(&self) -> Taskbay {
        Taskbay::run(&self.database.url(), self.folder.path()).ledger(&self.ledger)
    }

    async fn host(&self, command: Taskbay) -> Running {
        let host = command.spawn();
        host.event("worker_ready", |_| true).await;
        host
    }

    async fn add_many(&self, count: usize, payload: &str) {
        let sql = format!(
            "select count(*) from graphile_worker.add_jobs(array(
               select row('echo', '{payload}'::jsonb || jsonb_build_object('n', n), null, now(), 25, null, 0, null)
                 ::graphile_worker.job_spec
               from generate_series(1, {count}) as n))"
        );
        self.database.id_of(&sql, &[]).await;
    }

    /// Has the host learn that `echo` is short.
    async fn warm_up(&self) {
        self.add_many(WARM_UP, "{}").await;
        self.database.wait_until_no_jobs().await;
    }

    /// How many rows of jobs were ever changed without being deleted.
    async fn updates(&self) -> i64 {
        // Each process reports what it did when it has been idle for a moment, or ends.
        self.database.terminate_others().await;
        let sql = "select n_tup_upd from pg_stat_user_tables where relname = '_private_jobs'";
        self.database.id_of(sql, &[]).await
    }
}

fn of_job(id: i64) -> impl Fn(&Value) -> bool {
    move |line| line["job"] == id
}

#[tokio::test(flavor = "multi_thread")]
async fn short_jobs_are_not_marked_and_marked_ones_are_where_that_is_asked_for() {
    for (lane, marked) in [("express", false), ("marked", true)] {
        let place = Workplace::new().await;
        let host = place.host(place.command().args(["--claim", lane, "--log-level", "info"])).await;
        place.warm_up().await;
        place.add_many(4_000, "{}").await;
        place.database.wait_until_no_jobs().await;
        host.stop().await;
        let updates = place.updates().await;
        assert_eq!(updates >= 4_000, marked, "{lane}: {updates} rows were marked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_with_a_key_or_a_queue_are_always_marked() {
    let place = Workplace::new().await;
    let host = place.host(place.command().args(["--log-level", "info"])).await;
    place.warm_up().await;
    let sql = "select count(graphile_worker.add_job('echo', '{}', job_key := 'key ' || n)) +
                      count(graphile_worker.add_job('echo', '{}', queue_name := 'queue ' || n % 7))
               from generate_series(1, 500) as n";
    place.database.id_of(sql, &[]).await;
    place.database.wait_until_no_jobs().await;
    host.stop().await;
    assert!(place.updates().await >= 1_000);
    assert_eq!(place.database.locked_queues().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_long_is_marked_and_holds_nobody_else_up() {
    let place = Workplace::new().await;
    let mut host = place.host(place.command()).await;
    place.warm_up().await;
    // One transaction takes them all.
    let sql = "select max(job.id) from graphile_worker.add_jobs(array(
                 select row('echo', json_build_object('n', n, 'sleep_ms', case when n = 5 then 120000 else 0 end),
                            null, now(), 25, null, 0, null)::graphile_worker.job_spec
                 from generate_series(1, 10) as n)) as job where job.payload->>'n' = '5'";
    let long = place.database.id_of(sql, &[]).await;
    host.event("job_started", of_job(long)).await;
    let deadline = Instant::now() + DEADLINE;
    loop {
        let jobs = place.database.jobs().await;
        if let [job] = &jobs[..]
            && job.locked_by.is_some()
        {
            assert_eq!((job.id, job.attempts), (long, 1));
            break;
        }
        assert!(Instant::now() < deadline, "{jobs:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
    let place = Workplace::new().await;
    let host = place.host(place.command()).await;
    place.warm_up().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_leaves_its_short_jobs_free() {
    let place = Workplace::new().await;
    let start = async || place.host(place.command().args(["--log-level", "info"])).await;
    let mut host = start().await;
    place.warm_up().await;
    // Long enough that a transaction is nearly always open with jobs that run, and short enough for the lane.
    place.add_many(6_000, r#"{"sleep_ms": 5, "announce": true}"#).await;
    let mut kills = 0;
    loop {
        let ran = place.ledger.entries().len();
        place.ledger.wait_for(ran + 500).await;
        host.signal(Signal::KILL);
        host.ended().await;
        kills += 1;
        place.database.wait_until_others_rest().await;
        let jobs = place.database.jobs().await;
        assert!(!jobs.is_empty(), "it was too late to kill it");
        let began: HashSet<i64> = place.ledger.entries().iter().map(|entry| entry.job).collect();
        let free = jobs.iter().any(|job| began.contains(&job.id) && job.locked_by.is_none());
        place.database.execute("update graphile_worker._private_jobs set locked_by = null, locked_at = null").await;
        host = start().await;
        if free {
            break;
        }
        // It was killed between two transactions.
        assert!(kills < 10, "of {} jobs, none that had begun is free", jobs.len());
    }
    place.database.wait_until_no_jobs().await;
    host.stop().await;
    let mut runs: HashMap<i64, usize> = HashMap::new();
    let entries = place.ledger.entries();
    entries.iter().filter(|entry| entry.event == "ended").for_each(|entry| *runs.entry(entry.job).or_default() += 1);
    assert_eq!(runs.len(), WARM_UP + 6_000, "none was lost");
    let twice = runs.values().filter(|runs| **runs > 1).count();
    assert!(twice <= 2_400 * kills, "{twice} ran again: no more than were under way");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_lose_nothing_and_repeat_nothing() {
    let place = Workplace::new().await;
    let host = place.host(place.command().args(["--log-level", "info", "--poll-interval", "200ms"])).await;
    place.warm_up().await;
    place.add_many(20_000, r#"{"sleep_ms": 1}"#).await;
    for round in 1..=10 {
        place.ledger.wait_for(WARM_UP + round * 1_500).await;
        place.database.terminate_others().await;
    }
    let deadline = Instant::now() + DEADLINE;
    let left = "select count(*) from graphile_worker._private_jobs where locked_by is null";
    while place.database.id_of(left, &[]).await > 0 {
        assert!(Instant::now() < deadline, "it goes on after each of them");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    host.stop().await;
    let mut runs: HashMap<i64, usize> = HashMap::new();
    place.ledger.entries().iter().for_each(|entry| *runs.entry(entry.job).or_default() += 1);
    // A claim that was cut off may have marked jobs of which nobody heard.
    let locked = place.database.jobs().await.len();
    assert!(locked <= 10 * 1_000, "{locked} are locked");
    assert_eq!(runs.len() + locked, WARM_UP + 20_000, "none was lost");
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
        place.add_many(WARM_UP, "{}").await;
        let mut host = place.command().args(["--in-process", "--log-level", "info"]).spawn();
        assert!(!host.ended().await.success());
        // As the one does who looks after locks of the dead.
        place.database.execute("update graphile_worker._private_jobs set locked_by = null, locked_at = null").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_in_queues_are_found_among_many_short_ones() {
    let place = Workplace::new().await;
    let host = place.host(place.command().args(["--log-level", "info", "--poll-interval", "1h"])).await;
    place.warm_up().await;
    let sql = "select count(graphile_worker.add_job('echo', '{\"n\": -1}', queue_name := 'serial')) from generate_series(1, 5)";
    place.add_many(1_000, "{}").await;
    place.database.id_of(sql, &[]).await;
    place.add_many(20_000, "{}").await;
    place.database.wait_until_no_jobs().await;
    host.stop().await;
    let entries = place.ledger.entries();
    let last = entries.iter().rposition(|entry| entry.queue.is_some()).expect("they ran");
    assert!(last < entries.len() / 2, "jobs in queues wait for those behind them: {last} of {}", entries.len());
}

/// Jobs that no slot takes before the transaction ends are free again with the commit, and the claim on the same trip, or the
/// other line's, finds them. Such a claim was once marked and thrown away: the jobs stayed locked for as long as the host lived.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_left_behind_by_a_transaction_are_claimed_again_at_once() {
    let place = Workplace::new().await;
    // Only what the host itself remembers can bring them before the next hour.
    let args = ["--log-level", "info", "--poll-interval", "1h", "--jobs", "1"];
    let host = place.host(place.command().args(args)).await;
    place.warm_up().await;
    // Now and then, a long one holds up those that were locked with it. It is not enough to make the task a long one.
    let sql = "select count(*) from graphile_worker.add_jobs(array(
       select row('echo', json_build_object('n', n, 'sleep_ms', case when n % 150 = 0 then 35 else 0 end), null, now(), 25,
                  null, 0, null)::graphile_worker.job_spec
       from generate_series(1, 10000) as n))";
    place.database.id_of(sql, &[]).await;
    place.database.wait_until_no_jobs().await;
    host.stop().await;
    let mut runs: HashMap<i64, usize> = HashMap::new();
    place.ledger.entries().iter().for_each(|entry| *runs.entry(entry.job).or_default() += 1);
    assert_eq!(runs.len(), WARM_UP + 10_000);
    assert!(runs.values().all(|runs| *runs == 1), "each ran once");
}
