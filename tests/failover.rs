//! An asynchronous failover: the next server has not heard of everything that the one before it had stored.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::{
    harness::{
        cluster::{Cluster, End},
        ledger::Entry,
        plugins::{install_plugin, tasks_folder},
        postgres::TestDatabase,
        program::{Running, Taskbay},
        proxy::{Proxy, Way},
        wait::{until, until_true},
    },
    outages::{Place, wait_until_drained},
};

/// A server, and a standby for which it does not wait.
struct Pair {
    place: Place,
    /// Between the two.
    link: Proxy,
    standby: Cluster,
}

impl Pair {
    async fn new() -> Self {
        let place = Place::new(&[]).await;
        let link = Proxy::start(place.cluster.port()).await;
        let standby = place.cluster.follower(link.port()).await;
        Self { place, link, standby }
    }

    async fn host(&self, args: &[&str]) -> Running {
        let (one, other) = (self.place.cluster.port(), self.standby.port());
        let url = format!("postgres://postgres@127.0.0.1:{one},127.0.0.1:{other}/jobs?target_session_attrs=read-write");
        let host = Taskbay::run(&url, self.place.folder.path()).ledger(&self.place.ledger).args(args).spawn();
        host.event("listening", |_| true).await;
        host
    }

    /// Waits until the standby knows that something holds.
    async fn wait_for_standby(&self, condition: &str) {
        let client = self.standby.client().await;
        wait_until(&client, condition).await;
    }

    /// From now on, the standby hears of nothing.
    async fn hold_back(&self) {
        self.link.set(Way::Refuse).await;
        self.link.cut();
    }

    /// The server is lost, and the host finds the standby in its place.
    async fn fail_over(&self, host: &Running) -> Client {
        let listened = host.events("listening").len();
        self.place.cluster.end(End::Kill).await;
        self.standby.promote().await;
        host.nth_event(&["listening"], listened + 1).await;
        self.standby.client().await
    }

    /// Waits until so many runs have begun or ended.
    async fn wait_for(&self, event: &str, runs: usize) -> Vec<Entry> {
        until(format_args!("{runs} runs have {event}"), async || {
            let mut entries = self.place.ledger.entries();
            entries.retain(|entry| entry.event == event);
            if entries.len() >= runs { Ok(entries) } else { Err(entries.len()) }
        })
        .await
    }

    fn gate(&self, name: &str) -> PathBuf {
        self.place.folder.path().join(format!("{name}.gate"))
    }
}

async fn wait_until(client: &Client, condition: &str) {
    let sql = format!("select {condition}");
    until_true(condition, async || client.query_one(&sql, &[]).await.expect(condition).get(0)).await;
}

async fn add(client: &Client, payload: Value, queue: Option<&str>, count: i32) -> Vec<i64> {
    let sql = "select (graphile_worker.add_job('echo', $1, $2)).id from generate_series(1, $3)";
    let rows = client.query(sql, &[&payload, &queue, &count]).await.expect("add jobs");
    rows.iter().map(|row| row.get(0)).collect()
}

/// The claims had reached the standby, and the ends of the jobs had not.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_gives_back_what_it_does_not_have_after_a_failover() {
    let pair = Pair::new().await;
    let host = pair.host(&["--claim", "marked"]).await;
    let (primary, gate) = (pair.place.cluster.client().await, pair.gate("open"));
    let payload = json!({"announce": true, "until": gate});
    add(&primary, payload.clone(), Some("q"), 1).await;
    add(&primary, payload, None, 1).await;
    pair.wait_for("began", 2).await;
    pair.wait_for_standby("count(locked_by) = 2 from graphile_worker._private_jobs").await;
    pair.hold_back().await;
    fs::write(&gate, "").expect("let the jobs end");
    pair.wait_for("ended", 2).await;
    wait_until_drained(&pair.place.cluster).await;

    let next = pair.fail_over(&host).await;
    let added = add(&next, json!({}), Some("q"), 1).await;
    wait_until_drained(&pair.standby).await;
    let ended = pair.wait_for("ended", 5).await;
    assert_eq!(ended.len(), 5, "each of the two has run again, because its end was lost");
    assert_eq!(ended.iter().filter(|entry| entry.job == added[0]).count(), 1);
    assert!(ended.iter().all(|entry| entry.attempt == 1), "a lost end costs no attempt");
    wait_until(&next, "count(locked_by) = 0 from graphile_worker._private_job_queues").await;
    host.stop().await;
}

/// The new server gives ids out again that the lost one had given to other jobs, which still run.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_ends_no_job_that_has_its_id_only() {
    const JOBS: i32 = 60;
    let pair = Pair::new().await;
    let host = pair.host(&["--claim", "marked", "--jobs", "200"]).await;
    pair.wait_for_standby("count(*) > 0 from graphile_worker._private_tasks where identifier = 'echo'").await;
    pair.hold_back().await;
    let (primary, gates) = (pair.place.cluster.client().await, [pair.gate("old"), pair.gate("new")]);
    let old = add(&primary, json!({"announce": true, "until": gates[0]}), None, JOBS).await;
    pair.wait_for("began", old.len()).await;

    let next = pair.fail_over(&host).await;
    let payload = json!({"announce": true, "until": gates[1], "fail_until": 1});
    let new = add(&next, payload, None, JOBS).await;
    assert!(new.iter().any(|id| old.contains(id)), "ids are given out again: {old:?} {new:?}");
    pair.wait_for("began", old.len() + new.len()).await;
    fs::write(&gates[0], "").expect("let the old jobs end");
    pair.wait_for("ended", old.len()).await;
    until("all old results are refused", async || {
        let left: i64 = next.query_one("select count(*) from graphile_worker.jobs", &[]).await.expect("count").get(0);
        assert_eq!(left, i64::from(JOBS), "an old result has ended a new job");
        let refused = host.events("verdict_overruled").len();
        if refused >= old.len() { Ok(()) } else { Err(refused) }
    })
    .await;
    fs::write(&gates[1], "").expect("let the new jobs end");
    let failed = format!("count(*) = {JOBS} from graphile_worker.jobs where last_error = 'failed as asked'");
    wait_until(&next, &failed).await;
    host.stop().await;
}

/// Whatever locked it, nobody else would free it before four hours have passed.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_stopped_frees_what_it_does_not_have() {
    for args in [&[][..], &["--no-liveness"]] {
        let (database, folder) = (TestDatabase::installed().await, tasks_folder());
        install_plugin(folder.path(), "misbehaving");
        let host = Taskbay::run(&database.url(), folder.path()).args(args).spawn();
        let ready = host.event("worker_ready", |_| true).await;
        host.event("listening", |_| true).await;
        let owner = ready["owner"].as_str().expect("an owner");
        let id = database.add_to_queue("theirs", json!({}), "with a job").await;
        database.add_to_queue("theirs", json!({}), "without a job").await;
        for of in [format!("_private_jobs set attempts = 1, @ where id = {id}"), "_private_job_queues set @".to_owned()]
        {
            let lock = format!("locked_by = '{owner}', locked_at = now()");
            database.execute(&format!("update graphile_worker.{}", of.replace('@', &lock))).await;
        }
        host.stop().await;
        let job = database.job(id).await;
        assert_eq!((job.locked_by, job.attempts), (None, 0), "{args:?}");
        assert_eq!(database.locked_queues().await, 0, "{args:?}");
    }
}
