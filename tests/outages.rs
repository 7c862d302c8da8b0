//! Postgres is away, in each way in which it can be: nothing is lost, nothing is done twice, it is said once, and the host goes on
//! as soon as it can.

mod network;
mod refusals;

use std::{fs, time::Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use taskbay::{
    migrate,
    queue::{Database, DatabaseSettings},
};
use tokio_postgres::Client;

use crate::harness::{
    cluster::{Cluster, End},
    ledger::Ledger,
    plugins::{install_plugin, tasks_folder},
    program::{Running, Taskbay},
    proxy::{Proxy, Way},
    wait::until,
};

/// So many jobs come at once; they take some seconds.
const STREAM: i64 = 3_000;
/// This many of them are run before something happens.
const FIRST: usize = 300;

/// A server of the test's own, a way to it, and what works there.
pub(crate) struct Place {
    pub(crate) cluster: Cluster,
    pub(crate) proxy: Proxy,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) ledger: Ledger,
}

impl Place {
    pub(crate) async fn new(arguments: &[&str]) -> Self {
        Self::on(Cluster::start(arguments).await).await
    }

    pub(crate) async fn on(cluster: Cluster) -> Self {
        let database = Database::new(DatabaseSettings::new(cluster.config("jobs", cluster.port()), "graphile_worker"));
        migrate::prepare(&database.expect("settings")).await.expect("install the schema");
        let proxy = Proxy::start(cluster.port()).await;
        let folder = tasks_folder();
        install_plugin(folder.path(), "misbehaving");
        Self { cluster, proxy, folder, ledger: Ledger::new() }
    }

    /// A host. It does not poll, so that only what it hears or remembers brings it jobs.
    fn command(&self, url: &str) -> Taskbay {
        Taskbay::run(url, self.folder.path()).args(["--poll-interval", "1h"]).ledger(&self.ledger)
    }

    /// One that reaches the server through the proxy.
    async fn host(&self) -> Running {
        self.command(&self.cluster.url_by(self.proxy.port())).listening().await
    }

    /// Adds many short jobs, some of them in queues.
    pub(crate) async fn add_stream(&self, count: i64) {
        let sql = "select count(graphile_worker.add_job(
                     'echo',
                     json_build_object('n', n, 'sleep_ms', n % 4 * 5),
                     queue_name := case when n % 20 = 0 then 'q' || n % 3 end
                   )) from generate_series(1::int8, $1) as n";
        self.cluster.client().await.execute(sql, &[&count]).await.expect("add jobs");
    }

    /// Adds one job that says when it begins.
    async fn add(&self, cluster: &Cluster) -> i64 {
        self.add_with(cluster, json!({"announce": true, "n": 0})).await
    }

    /// The same, which runs until [`Self::let_it_end`].
    async fn add_long(&self) -> i64 {
        self.add_with(&self.cluster, json!({"announce": true, "n": 0, "until": self.ledger.gate()})).await
    }

    async fn add_with(&self, cluster: &Cluster, payload: Value) -> i64 {
        let sql = "select (graphile_worker.add_job('echo', $1)).id";
        cluster.client().await.query_one(sql, &[&payload]).await.expect("add a job").get(0)
    }

    async fn let_it_end(&self, job: i64) {
        fs::write(self.ledger.gate(), "").expect("let the job end");
        self.wait_for("ended", job).await;
    }

    /// Waits until a job has begun or ended.
    async fn wait_for(&self, event: &str, job: i64) {
        until(format_args!("job {job} has {event}"), async || {
            let entries = self.ledger.entries();
            let seen = entries.iter().any(|entry| entry.job == job && entry.event == event);
            if seen { Ok(()) } else { Err(entries.len()) }
        })
        .await;
    }
}

/// Waits until every job is done.
pub(crate) async fn wait_until_drained(cluster: &Cluster) {
    wait_until_drained_by(&cluster.client().await).await;
}

/// As seen on this connection.
pub(crate) async fn wait_until_drained_by(client: &Client) {
    let sql = "select count(*), count(locked_at), min(id) from graphile_worker._private_jobs";
    until("every job is done", async || {
        let row = client.query_one(sql, &[]).await.expect("count the jobs");
        let (left, locked, first): (i64, i64, Option<i64>) = (row.get(0), row.get(1), row.get(2));
        if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} are left, {locked} of them locked, the first is {first:?}"))
        }
    })
    .await;
}

pub(crate) fn warnings(host: &Running) -> Vec<Value> {
    host.events("database_trouble").into_iter().filter(|line| line["level"] == "WARN").collect()
}

/// One outage under load. A job that began before it ends while it lasts.
async fn survive(
    place: &Place,
    host: &Running,
    away: impl AsyncFnOnce(),
    back: impl AsyncFnOnce(),
    cluster_after: &Cluster,
) {
    let long = place.add_long().await;
    place.wait_for("began", long).await;
    place.add_stream(STREAM).await;
    place.ledger.wait_for(FIRST).await;
    let listened = host.events("listening").len();
    away().await;
    place.let_it_end(long).await;
    host.nth_event(&["database_trouble"], 4).await;
    back().await;
    let ended = Instant::now();
    host.nth_event(&["listening"], listened + 1).await;
    let after = place.add(cluster_after).await;
    place.wait_for("ended", after).await;
    println!("a job that was added after the outage had ended {:?} after it", ended.elapsed());
    wait_until_drained(cluster_after).await;
    println!("everything was done {:?} after it", ended.elapsed());
    let runs = place.ledger.runs();
    let wrong: Vec<_> = runs.iter().filter(|(_, runs)| **runs != 1).collect();
    assert!(wrong.is_empty(), "jobs that were run more than once, with their runs: {wrong:?}");
    assert_eq!(runs.len() as i64, STREAM + 2, "none is lost");
    let sql = "select count(*) from graphile_worker._private_job_queues where locked_by is not null";
    let locked: i64 = cluster_after.client().await.query_one(sql, &[]).await.expect("count the queues").get(0);
    assert_eq!(locked, 0, "no queue is left locked");
    let said = warnings(host);
    assert_eq!(said.len(), 1, "it is said once: {said:#?}");
}

async fn survive_here(away: impl AsyncFnOnce(&Place), back: impl AsyncFnOnce(&Place)) {
    let place = Place::new(&[]).await;
    let host = place.host().await;
    survive(&place, &host, async || away(&place).await, async || back(&place).await, &place.cluster).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_restarted() {
    survive_here(async |place| place.cluster.end(End::Fast).await, async |place| place.cluster.start_again().await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_ends_at_once() {
    let end = async |place: &Place| place.cluster.end(End::Immediate).await;
    survive_here(end, async |place| place.cluster.start_again().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_killed() {
    survive_here(async |place| place.cluster.end(End::Kill).await, async |place| place.cluster.start_again().await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_cannot_be_reached() {
    let away = async |place: &Place| {
        place.proxy.set(Way::Refuse).await;
        place.proxy.cut();
    };
    survive_here(away, async |place| place.proxy.set(Way::Pass).await).await;
}

/// Somebody in between holds the connections and lets nothing through: no end of a connection tells of it.
#[tokio::test(flavor = "multi_thread")]
async fn connections_swallow_what_is_sent() {
    survive_here(async |place| place.proxy.set(Way::Swallow).await, async |place| place.proxy.set(Way::Pass).await)
        .await;
}

/// Who is told to stop, and to be done by some time, ends though it cannot store what its jobs have come to.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_has_a_limit_ends_though_nothing_can_be_stored() {
    let place = Place::new(&[]).await;
    let settings = format!(
        "[worker]\nstop_timeout = \"1s\"\n[plugins.misbehaving.settings]\necho_file = {:?}",
        place.ledger.path()
    );
    let url = place.cluster.url_by(place.proxy.port());
    let mut host = Taskbay::run(&url, place.folder.path()).settings(&settings).listening().await;
    let job = place.add_long().await;
    place.wait_for("began", job).await;
    place.proxy.set(Way::Refuse).await;
    place.proxy.cut();
    place.let_it_end(job).await;
    host.signal(Signal::TERM);
    host.event("verdicts_lost", |_| true).await;
    host.ended().await;
}
