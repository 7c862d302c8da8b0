//! Hosts that are well, beside others that die, start, or lose their connections: nobody takes a job from them.

use taskbay::{
    migrate,
    queue::{Database, DatabaseSettings},
};

use super::*;
use crate::harness::cluster::{Cluster, End};

/// Nobody is taken for dead for so long after the server's start.
const SETTLED: &str = "select count(*) from (select pg_postmaster_start_time() as since) as start
                       where clock_timestamp() - since > interval '35 seconds'";

/// Waits until the server has been up for so long that its start explains nothing any more.
async fn settled(client: &tokio_postgres::Client) {
    let deadline = Instant::now() + DEADLINE * 2;
    while client.query_one(SETTLED, &[]).await.expect("ask for the start").get::<_, i64>(0) == 0 {
        assert!(Instant::now() < deadline, "the server starts again and again");
        // The age is what counts; no event comes with it.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Watches for so long that nobody takes over.
async fn nobody_takes_over(hosts: &[&Running], during: Duration) {
    let end = Instant::now() + during;
    while Instant::now() < end {
        for host in hosts {
            assert_eq!(host.events("taken_over"), Vec::<Value>::new());
        }
        // What is not to happen tells nobody that it will not.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn owner_of(host: &Running) -> String {
    host.event("worker_ready", |_| true).await["owner"].as_str().expect("an owner").to_owned()
}

/// One host ends, and when it is about to be judged, another one loses its connection for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_not_counted_together_with_the_end_of_another_host() {
    for after in [1_900, 9_900] {
        let place = Place::new().await;
        settled(&place.database.client().await).await;
        let victim = place.host().await;
        let id = place.begin(after + LONGER).await;
        let (watching, ending) = (place.host().await, place.host().await);
        let of_victim = owner_of(&victim).await;
        // Each has seen each other: they look every second, and say nothing.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        ending.stop().await;
        // When the cut comes, by this much after the end, is the case under test.
        tokio::time::sleep(Duration::from_millis(after)).await;
        let sql = "select count(pg_terminate_backend(pid)) from pg_locks
                   where locktype = 'advisory' and classid = 1952543595
                     and objid = (hashtext($1)::int8 & 4294967295)::oid";
        victim.signal(Signal::STOP);
        assert_eq!(place.database.id_of(sql, &[&of_victim]).await, 1);
        let cut = Instant::now();
        // For as long as the other one can be found dead, and for half as long as this one needs to be away for that.
        tokio::time::sleep(Duration::from_secs(1)).await;
        victim.signal(Signal::CONT);
        until_true("it shows life again", async || place.living().await >= 2).await;
        println!("it was back after {:?}", cut.elapsed());
        nobody_takes_over(&[&watching], Duration::from_secs(3)).await;
        place.database.wait_until_no_jobs().await;
        assert_eq!(place.attempts_of(id), [1], "{after} ms after the other one had ended");
        victim.stop().await;
        watching.stop().await;
    }
}

/// A server of the test's own, with a way to it that can be interrupted.
struct Own {
    cluster: Cluster,
    proxy: Proxy,
    folder: tempfile::TempDir,
    ledger: Ledger,
}

impl Own {
    async fn new() -> Self {
        let cluster = Cluster::start(&[]).await;
        let database = Database::new(DatabaseSettings::new(cluster.config("jobs", cluster.port()), "graphile_worker"));
        migrate::prepare(&database.expect("settings")).await.expect("install the schema");
        let proxy = Proxy::start(cluster.port()).await;
        let folder = tasks_folder();
        install_plugin(folder.path(), "misbehaving");
        settled(&cluster.client().await).await;
        Self { cluster, proxy, folder, ledger: Ledger::new() }
    }

    /// A host that shows that it lives, and hears of jobs.
    async fn host(&self) -> Running {
        let host =
            Taskbay::run(&self.cluster.url_by(self.proxy.port()), self.folder.path()).ledger(&self.ledger).spawn();
        host.event("listening", |_| true).await;
        let owner = owner_of(&host).await;
        let client = self.cluster.client().await;
        let lives = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1952543595
                       and objid = (hashtext($1)::int8 & 4294967295)::oid";
        let locks = async || client.query_one(lives, &[&owner]).await.expect("look at the locks").get::<_, i64>(0);
        until_true("it shows that it lives", async || locks().await > 0).await;
        host
    }

    /// Adds a job that takes so long, and waits until it runs.
    async fn begin(&self, ms: i64) {
        let sql =
            "select count(graphile_worker.add_job('echo', json_build_object('sleep_ms', $1::int8, 'announce', true)))";
        self.cluster.client().await.query_one(sql, &[&ms]).await.expect("add a job");
        self.ledger.wait_for(1).await;
    }

    async fn has_run_once(&self) {
        crate::outages::wait_until_drained(&self.cluster).await;
        let events: Vec<String> = self.ledger.entries().into_iter().map(|entry| entry.event).collect();
        assert_eq!(events, ["began", "ended"]);
    }
}

/// Longer than anybody is watched who has not been seen before.
const OUT_OF_SIGHT: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_planned_before_the_server_was_restarted_is_forgotten() {
    let own = Own::new().await;
    let victim = own.host().await;
    own.begin(25_000).await;
    let (watching, mut killed) = (own.host().await, own.host().await);
    // Each has seen each other: they look every second, and say nothing.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    killed.signal(Signal::KILL);
    killed.ended().await;
    // The release of its jobs is planned, and not due.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let listened = watching.events("listening").len();
    victim.signal(Signal::STOP);
    own.cluster.end(End::Fast).await;
    own.cluster.start_again().await;
    watching.nth_event(&["listening"], listened + 1).await;
    nobody_takes_over(&[&watching], OUT_OF_SIGHT).await;
    victim.signal(Signal::CONT);
    own.has_run_once().await;
    victim.stop().await;
    watching.stop().await;
}

/// A crash of one of its processes has the server end all connections, though its first process goes on as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_starts_after_a_crash_of_the_server_leaves_the_others_time_to_come_back() {
    let own = Own::new().await;
    let victim = own.host().await;
    own.begin(25_000).await;
    victim.signal(Signal::STOP);
    let client = own.cluster.client().await;
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await.expect("ask for the process").get(0);
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    rustix::process::kill_process(pid, Signal::KILL).expect("kill a process of the server");
    let back = async || own.cluster.try_client("jobs").await.is_ok() && client.is_closed();
    until_true("the server is back", back).await;
    let starting = own.host().await;
    nobody_takes_over(&[&starting], OUT_OF_SIGHT).await;
    victim.signal(Signal::CONT);
    own.has_run_once().await;
    victim.stop().await;
    starting.stop().await;
}

/// As when a pooler is restarted. Nothing in the server tells of it, but a host that has come back does.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_starts_hears_from_another_one_that_all_had_lost_their_connections() {
    let own = Own::new().await;
    let victim = own.host().await;
    own.begin(25_000).await;
    let other = own.host().await;
    victim.signal(Signal::STOP);
    let listened = other.events("listening").len();
    own.proxy.cut();
    other.nth_event(&["listening"], listened + 1).await;
    let starting = own.host().await;
    nobody_takes_over(&[&starting, &other], OUT_OF_SIGHT).await;
    victim.signal(Signal::CONT);
    own.has_run_once().await;
    for host in [victim, other, starting] {
        host.stop().await;
    }
}
