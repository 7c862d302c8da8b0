//! All that works, and what lies between it and the server.

use std::{collections::HashMap, process::Stdio, time::Duration};

use tempfile::TempDir;
use tokio::{
    process::Child,
    time::{Instant, sleep},
};

use crate::{
    harness::{
        clock::JumpingClock,
        cluster::Cluster,
        ledger::Ledger,
        node::{self, Release},
        plugins::{another_build, install, tasks_folder},
        processes::is_alive,
        program::{Running, Taskbay},
        proxy::Proxy,
    },
    outages::Place,
};

pub(super) const HOSTS: usize = 3;
/// The plugin whose jobs write their runs into files, and the one whose jobs write them into the database.
pub(super) const FILE: &str = "libmisbehaving.so";
const ROW_FILE: &str = "librow_ledger.so";
/// How long it may take until everything is done when the adversary has stopped: those who live after an outage have 30 seconds to
/// show it, and a claim that nobody heard of is looked for after as long.
const BOUND: Duration = Duration::from_secs(150);

/// The ledger in the database. The times of the database itself jump; those in microseconds are by the clock that nobody sets.
const ROW_LEDGER: &str = "
create table torture_runs (
  run int8 generated always as identity primary key,
  job int8 not null,
  n int8 not null,
  attempt int4 not null,
  host text,
  queue text,
  pid int4 not null,
  owner text,
  attempts int2,
  began_us int8 not null,
  began_at timestamptz not null default clock_timestamp(),
  ended_us int8,
  ended_at timestamptz
)";

/// What waits for a clock that was set back, or for its next attempt, need not. What is locked at this moment is left alone.
const HURRY: &str = "
update graphile_worker._private_jobs
set run_at = now()
where id in (
  select id
  from graphile_worker._private_jobs
  where run_at > now() + $1 * interval '1 second' and locked_at is null
  for update skip locked
)";

/// What the npm package's worker has left locked, which has ended, an administrator frees: by its own rules it takes 4 hours.
const UNLOCK_NODE: &str = "
select graphile_worker.force_unlock_workers(array(
  select locked_by from graphile_worker._private_jobs where locked_by not like 'taskbay-%'
  union
  select locked_by from graphile_worker._private_job_queues where locked_by not like 'taskbay-%'))";

pub(super) struct Arena {
    pub(super) place: Place,
    /// One of each for each host.
    pub(super) proxies: Vec<Proxy>,
    pub(super) ledgers: Vec<Ledger>,
    pub(super) clocks: Vec<JumpingClock>,
    /// `None`: killed, and not started again yet.
    pub(super) hosts: Vec<Option<Running>>,
    node: Option<Child>,
    pub(super) node_ledger: Ledger,
    builds: u32,
    /// Of hosts that have been killed since.
    takeovers: usize,
    /// By which names they have locked jobs, and which they are.
    owners: HashMap<String, usize>,
    _clock_folders: Vec<TempDir>,
}

impl Arena {
    pub(super) async fn new() -> Self {
        // A connection whose first packet was swallowed keeps a server that ends waiting for as long as that.
        let arguments = ["-c", "authentication_timeout=10s"];
        let place = Place::on(Cluster::start_with_clock(&arguments).await).await;
        place.cluster.client().await.batch_execute(ROW_LEDGER).await.expect("create the ledger");
        let mut proxies = Vec::new();
        for _ in 0..HOSTS {
            proxies.push(Proxy::start(place.cluster.port()).await);
        }
        let folders: Vec<TempDir> = (0..HOSTS).map(|_| tasks_folder()).collect();
        let mut arena = Self {
            place,
            proxies,
            ledgers: (0..HOSTS).map(|_| Ledger::new()).collect(),
            clocks: folders.iter().map(|folder| JumpingClock::new(folder.path())).collect(),
            hosts: (0..HOSTS).map(|_| None).collect(),
            node: None,
            node_ledger: Ledger::new(),
            builds: 0,
            takeovers: 0,
            owners: HashMap::new(),
            _clock_folders: folders,
        };
        arena.install_good();
        arena.install_good_rows();
        (0..HOSTS).for_each(|slot| arena.start(slot));
        arena.start_node().await;
        arena
    }

    pub(super) fn install_good(&mut self) {
        self.builds += 1;
        install(self.place.folder.path(), FILE, &another_build("misbehaving", self.builds));
    }

    pub(super) fn install_good_rows(&mut self) {
        self.builds += 1;
        install(self.place.folder.path(), ROW_FILE, &another_build("row-ledger", self.builds));
    }

    pub(super) fn start(&mut self, slot: usize) {
        let url = self.place.cluster.url_by(self.proxies[slot].port());
        let url = format!("{url}?application_name=host{slot}");
        let rows = format!("[plugins.row_ledger]\ndatabase_url = true\nsettings = {{ host = \"host{slot}\" }}");
        let host = Taskbay::run(&url, self.place.folder.path())
            .args(["--watch", "--poll-interval", "500ms", "-j", "8", "--log-level", "info"])
            .ledger(&self.ledgers[slot])
            .settings(&rows)
            .by_clock(&self.clocks[slot]);
        self.hosts[slot] = Some(host.spawn());
    }

    /// Whether it was there.
    pub(super) fn kill(&mut self, slot: usize) -> bool {
        // Dropping it kills it.
        let killed = self.hosts[slot].take();
        self.takeovers += killed.iter().map(takeovers_of).sum::<usize>();
        self.owners.extend(killed.iter().flat_map(owners_of).map(|owner| (owner, slot)));
        killed.is_some()
    }

    /// Which host has locked jobs by which name, as far as it could say so.
    pub(super) fn owners(&self) -> HashMap<String, usize> {
        let living = self.hosts.iter().enumerate().flat_map(|(slot, host)| host.iter().map(move |host| (slot, host)));
        let named = living.flat_map(|(slot, host)| owners_of(host).map(move |owner| (owner, slot)));
        self.owners.clone().into_iter().chain(named).collect()
    }

    /// How often a host took another one for dead.
    pub(super) fn takeovers(&self) -> usize {
        self.takeovers + self.hosts.iter().flatten().map(takeovers_of).sum::<usize>()
    }

    /// A host that was not killed runs, whatever happens.
    pub(super) fn see_that_they_live(&self) {
        for (slot, host) in self.hosts.iter().enumerate() {
            assert!(host.as_ref().is_none_or(|host| is_alive(host.id())), "host {slot} has ended by itself");
        }
    }

    /// The npm package's worker may end when the server does: then its locks are lifted, and it is started again.
    pub(super) async fn start_node(&mut self) {
        if self.node.as_mut().is_some_and(|node| node.try_wait().is_ok_and(|ended| ended.is_none())) {
            return;
        }
        let Ok(client) = self.place.cluster.try_client("jobs").await else { return };
        if client.batch_execute(UNLOCK_NODE).await.is_err() {
            return;
        }
        let url = self.place.cluster.url();
        let mut command = node::script_with(Release::Newest, "fleet.cjs", &url, "graphile_worker");
        command.arg(self.node_ledger.path()).env("ROW_LEDGER", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.node = Some(command.spawn().expect("start a Node worker"));
    }

    pub(super) async fn stop_node(&mut self) {
        if let Some(mut node) = self.node.take() {
            drop(node.stdin.take());
            if tokio::time::timeout(Duration::from_secs(20), node.wait()).await.is_err() {
                node.kill().await.expect("end the Node worker");
            }
        }
    }

    /// As an administrator does when the clock of Postgres was wrong: what is due in a minute at the earliest, is due now.
    pub(super) async fn bring_forward(&self) {
        if let Ok(client) = self.place.cluster.try_client("jobs").await {
            // The server may end meanwhile.
            let _ = client.execute(HURRY, &[&60.0]).await;
        }
    }

    /// Waits until nothing is left but what has failed for good.
    pub(super) async fn drain(&mut self) {
        let client = self.place.cluster.client().await;
        let deadline = Instant::now() + BOUND;
        client.batch_execute(UNLOCK_NODE).await.expect("lift the locks of the Node worker");
        let mut quarantined = 0;
        loop {
            self.see_that_they_live();
            // By the rules, a plugin whose jobs have crashed too often waits for its next build.
            let hosts = self.hosts.iter().flatten();
            let now = hosts.map(|host| host.events("plugin_quarantined").len()).sum();
            if std::mem::replace(&mut quarantined, now) < now {
                self.install_good();
                self.install_good_rows();
            }
            client.execute(HURRY, &[&0.0]).await.expect("hurry what has failed");
            let sql = "select (select count(*) from graphile_worker._private_jobs
                               where attempts < max_attempts or locked_at is not null),
                              (select count(*) from graphile_worker._private_job_queues where locked_at is not null),
                              (select string_agg(distinct locked_by, ', ') from graphile_worker._private_jobs)";
            let row = client.query_one(sql, &[]).await.expect("count the jobs");
            let (jobs, queues, owners): (i64, i64, Option<String>) = (row.get(0), row.get(1), row.get(2));
            if jobs == 0 && queues == 0 {
                return;
            }
            let late = Instant::now() > deadline;
            assert!(!late, "{jobs} jobs are left and {queues} queues locked after {BOUND:?}, by {owners:?}");
            sleep(Duration::from_millis(200)).await;
        }
    }
}

fn owners_of(host: &Running) -> impl Iterator<Item = String> + use<> {
    host.events("worker_ready").into_iter().filter_map(|line| line["owner"].as_str().map(str::to_owned))
}

fn takeovers_of(host: &Running) -> usize {
    host.events("taken_over").len()
}
