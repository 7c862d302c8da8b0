//! Postgres is away, in each way in which it can be: nothing is lost, nothing is done twice, it is said once, and the host goes on
//! as soon as it can.

use std::{
    collections::HashMap,
    env,
    ffi::OsStr,
    fs,
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use taskbay::{
    migrate,
    queue::{Database, DatabaseSettings},
};
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::harness::{
    cluster::{Cluster, End},
    ledger::{Entry, Ledger},
    plugins::{install_plugin, tasks_folder},
    program::{DEADLINE, Running, Taskbay},
    proxy::{Proxy, Way},
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
        ready(self.command(&self.cluster.url_by(self.proxy.port()))).await
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

    /// Adds one job that takes so long and says when it begins.
    async fn add(&self, cluster: &Cluster, ms: i64) -> i64 {
        let sql = "select (graphile_worker.add_job('echo', json_build_object('sleep_ms', $1::int8, 'announce', true, 'n', 0))).id";
        cluster.client().await.query_one(sql, &[&ms]).await.expect("add a job").get(0)
    }

    /// Waits until a job has begun or ended.
    async fn wait_for(&self, event: &str, job: i64) {
        let deadline = Instant::now() + DEADLINE;
        while !self.ledger.entries().iter().any(|entry| entry.job == job && entry.event == event) {
            assert!(Instant::now() < deadline, "job {job} has not {event}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// How often each job was run to its end.
    pub(crate) fn runs(&self) -> HashMap<i64, usize> {
        let mut runs = HashMap::new();
        let ended = |entry: &&Entry| entry.event == "ended";
        self.ledger.entries().iter().filter(ended).for_each(|entry| *runs.entry(entry.job).or_default() += 1);
        runs
    }
}

async fn ready(command: Taskbay) -> Running {
    let host = command.spawn();
    host.event("listening", |_| true).await;
    host
}

/// Waits until every job is done.
pub(crate) async fn wait_until_drained(cluster: &Cluster) {
    wait_until_drained_by(&cluster.client().await).await;
}

/// As seen on this connection.
pub(crate) async fn wait_until_drained_by(client: &Client) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let sql = "select count(*), count(locked_at), min(id) from graphile_worker._private_jobs";
        let row = client.query_one(sql, &[]).await.expect("count the jobs");
        let (left, locked, first): (i64, i64, Option<i64>) = (row.get(0), row.get(1), row.get(2));
        if left == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{left} jobs are left, {locked} of them locked, the first is {first:?}");
        sleep(Duration::from_millis(20)).await;
    }
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
    let long = place.add(&place.cluster, 1_500).await;
    place.wait_for("began", long).await;
    place.add_stream(STREAM).await;
    place.ledger.wait_for(FIRST).await;
    let listened = host.events("listening").len();
    away().await;
    place.wait_for("ended", long).await;
    host.nth_event(&["database_trouble"], 4).await;
    back().await;
    let ended = Instant::now();
    host.nth_event(&["listening"], listened + 1).await;
    let after = place.add(cluster_after, 0).await;
    place.wait_for("ended", after).await;
    println!("a job that was added after the outage had ended {:?} after it", ended.elapsed());
    wait_until_drained(cluster_after).await;
    println!("everything was done {:?} after it", ended.elapsed());
    let runs = place.runs();
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

/// Somebody in between, such as a firewall, has forgotten all connections of a host that had nothing to do, so that none of them
/// would have told it.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_rested_are_forgotten() {
    let place = Place::new(&[]).await;
    let host = place.host().await;
    place.add_stream(50).await;
    wait_until_drained(&place.cluster).await;
    let listened = host.events("listening").len();
    place.proxy.forget();
    host.nth_event(&["listening"], listened + 1).await;
    let job = place.add(&place.cluster, 0).await;
    place.wait_for("ended", job).await;
    wait_until_drained(&place.cluster).await;
    assert!(place.runs().values().all(|runs| *runs == 1));
    host.stop().await;
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
    let mut host = ready(Taskbay::run(&url, place.folder.path()).settings(&settings)).await;
    let job = place.add(&place.cluster, 300).await;
    place.wait_for("began", job).await;
    place.proxy.set(Way::Refuse).await;
    place.proxy.cut();
    place.wait_for("ended", job).await;
    host.signal(Signal::TERM);
    host.event("verdicts_lost", |_| true).await;
    host.ended().await;
}

/// Whoever was connected is cut off, and the server has no place for anybody else.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_has_too_many_clients() {
    let place = Place::new(&["-c", "max_connections=14", "-c", "superuser_reserved_connections=0"]).await;
    let host = place.host().await;
    let held = Mutex::new(Vec::new());
    let fill = async || {
        let mut clients = Vec::new();
        let kick = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'taskbay'";
        loop {
            let free = place.cluster.try_client("jobs").await;
            match free {
                Ok(client) => clients.push(client),
                Err(_) => {
                    let kicked: i64 = clients[0].query_one(kick, &[]).await.expect("end its connections").get(0);
                    if kicked == 0 && host.events("database_trouble").iter().any(full) {
                        *held.lock().unwrap() = clients;
                        return;
                    }
                }
            }
        }
    };
    survive(&place, &host, fill, async || held.lock().unwrap().clear(), &place.cluster).await;
    host.stop().await;
}

fn full(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|message| message.contains("too many clients"))
}

/// It lets those go on that are there, and nobody in.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_shutting_down() {
    let place = Place::new(&[]).await;
    let host = place.host().await;
    let last = place.cluster.client().await;
    let away = async || {
        place.cluster.signal(Signal::TERM);
        let kick = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'taskbay'";
        last.query_one(kick, &[]).await.expect("end its connections");
        host.event("database_trouble", |line| line["message"].as_str().is_some_and(|m| m.contains("shutting down")))
            .await;
    };
    let back = async || {
        let _ = last.batch_execute("select pg_terminate_backend(pg_backend_pid())").await;
        place.cluster.wait_until_ended().await;
        place.cluster.start_again().await;
    };
    survive(&place, &host, away, back, &place.cluster).await;
    host.stop().await;
}

/// It answers, and lets nobody in yet.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_starting_up() {
    let place = Place::new(&["-c", "hot_standby=off"]).await;
    let host = place.host().await;
    let away = async || {
        place.cluster.end(End::Fast).await;
        place.cluster.follow(true);
        place.cluster.begin().await;
        let starting = |line: &Value| {
            let message = line["message"].as_str().unwrap_or_default();
            message.contains("57P03")
        };
        host.event("database_trouble", starting).await;
    };
    let back = async || {
        place.cluster.end(End::Fast).await;
        place.cluster.follow(false);
        place.cluster.start_again().await;
    };
    survive(&place, &host, away, back, &place.cluster).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_takes_over() {
    let place = Place::new(&[]).await;
    let standby = place.cluster.standby().await;
    let (one, other) = (place.cluster.port(), standby.port());
    let url = format!("postgres://postgres@127.0.0.1:{one},127.0.0.1:{other}/jobs?target_session_attrs=read-write");
    let host = ready(place.command(&url)).await;
    let away = async || place.cluster.end(End::Kill).await;
    survive(&place, &host, away, async || standby.promote().await, &standby).await;
    host.stop().await;
}

/// As behind an address that moves before the server that it moves to may write.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_a_standby_for_a_while() {
    let place = Place::new(&[]).await;
    let standby = place.cluster.standby().await;
    let host = place.host().await;
    let away = async || {
        place.proxy.aim(standby.port());
        place.cluster.end(End::Fast).await;
        host.event("database_trouble", |line| line["message"].as_str().is_some_and(|m| m.contains("25006"))).await;
    };
    survive(&place, &host, away, async || standby.promote().await, &standby).await;
    host.stop().await;
}

/// The host has a file of names of its own, in which the server's name is missing for a while.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_name_is_not_found() {
    let flags = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let folder = tempfile::tempdir().expect("a folder");
    let (names, resolver) = (folder.path().join("hosts"), folder.path().join("resolv.conf"));
    fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").expect("write resolv.conf");
    let known = "127.0.0.1 localhost database.invalid\n";
    fs::write(&names, known).expect("write the names");
    let script = "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/resolv.conf && shift 2 && exec \"$@\"";
    let args = [OsStr::new(flags), "sh".as_ref(), "-c".as_ref(), script.as_ref(), "sh".as_ref()];
    let args: Vec<&OsStr> = args.into_iter().chain([names.as_os_str(), resolver.as_os_str()]).collect();
    let works = Command::new("unshare").args(&args).arg("true").output().is_ok_and(|output| output.status.success());
    if !works {
        assert!(env::var_os("CI").is_none(), "this would not be tested: no unshare {flags}, mount");
        eprintln!("not tested: this machine gives no process a file of names of its own (unshare {flags}, mount)");
        return;
    }
    let place = Place::new(&[]).await;
    let url = format!("postgres://postgres@database.invalid:{}/jobs", place.proxy.port());
    let host = ready(place.command(&url).below("unshare", &args)).await;
    let away = async || {
        fs::write(&names, "127.0.0.1 localhost\n").expect("write the names");
        place.proxy.cut();
        let unknown = |line: &Value| line["message"].as_str().is_some_and(|m| m.contains("its address"));
        host.event("database_trouble", unknown).await;
    };
    let back = async || fs::write(&names, known).expect("write the names");
    survive(&place, &host, away, back, &place.cluster).await;
    host.stop().await;
}

/// Each answer takes its time; that is no outage.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_is_no_outage() {
    let place = Place::new(&[]).await;
    place.proxy.set(Way::Delay(Duration::from_millis(100))).await;
    let host = place.host().await;
    place.add_stream(STREAM).await;
    wait_until_drained(&place.cluster).await;
    assert_eq!(host.events("database_trouble"), Vec::<Value>::new());
    assert!(place.runs().values().all(|runs| *runs == 1));
    assert_eq!(place.runs().len() as i64, STREAM);
    host.stop().await;
}

/// Claims that the server has carried out and of which the host never heard are not left locked for as long as it lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_was_lost_is_made_good() {
    let place = Place::new(&[]).await;
    let url = place.cluster.url_by(place.proxy.port());
    let host = ready(place.command(&url).args(["--claim", "marked"])).await;
    for round in 1..=10 {
        place.add_stream(STREAM / 10).await;
        place.ledger.wait_for(round * 200).await;
        place.proxy.cut();
    }
    wait_until_drained(&place.cluster).await;
    let runs = place.runs();
    assert!(runs.values().all(|runs| *runs == 1));
    assert_eq!(runs.len() as i64, STREAM);
    host.stop().await;
}
