//! Hosts and a Node worker under everything that can go wrong at once, as a seed says. What the jobs write down shows whether all
//! promises were kept.
//!
//! The seed settles what is done and in which order, not how the machine's own timing falls in between.

mod adversary;
mod invariants;
mod load;
mod near_misses;

use std::{env, process::Stdio, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    process::Child,
    time::{Instant, sleep},
};

use crate::{
    harness::{
        ledger::Ledger,
        node::{self, Release},
        plugins::{build_labelled, install},
        processes::is_alive,
        program::{Running, Taskbay},
        proxy::Proxy,
    },
    outages::Place,
};

use adversary::Adversary;
use load::Load;

const HOSTS: usize = 3;
const FILE: &str = "libmisbehaving.so";
/// What CI runs.
const SEED: u64 = 20_260;
const MINUTES: f64 = 0.75;
/// How long it may take until everything is done when the adversary has stopped: those who live after an outage have 30 seconds to
/// show it, and a claim that nobody heard of is looked for after as long.
const BOUND: Duration = Duration::from_secs(150);

/// What the npm package's worker has left locked, which has ended, an administrator frees: by its own rules it takes 4 hours.
const UNLOCK_NODE: &str = "
select graphile_worker.force_unlock_workers(array(
  select locked_by from graphile_worker._private_jobs where locked_by not like 'taskbay-%'
  union
  select locked_by from graphile_worker._private_job_queues where locked_by not like 'taskbay-%'))";

/// All that works, and what lies between it and the server.
struct Arena {
    place: Place,
    /// One for each host.
    proxies: Vec<Proxy>,
    ledgers: Vec<Ledger>,
    /// `None`: killed, and not started again yet.
    hosts: Vec<Option<Running>>,
    node: Option<Child>,
    node_ledger: Ledger,
    builds: u32,
}

impl Arena {
    async fn new() -> Self {
        let place = Place::new(&[]).await;
        let mut proxies = Vec::new();
        for _ in 0..HOSTS {
            proxies.push(Proxy::start(place.cluster.port()).await);
        }
        let ledgers = (0..HOSTS).map(|_| Ledger::new()).collect();
        let hosts = (0..HOSTS).map(|_| None).collect();
        let mut arena = Self { place, proxies, ledgers, hosts, node: None, node_ledger: Ledger::new(), builds: 0 };
        arena.install_good();
        (0..HOSTS).for_each(|slot| arena.start(slot));
        arena.start_node().await;
        arena
    }

    fn install_good(&mut self) {
        self.builds += 1;
        install(self.place.folder.path(), FILE, &build_labelled(self.builds));
    }

    fn start(&mut self, slot: usize) {
        let url = self.place.cluster.url_by(self.proxies[slot].port());
        let url = format!("{url}?application_name=host{slot}");
        let host = Taskbay::run(&url, self.place.folder.path())
            .args(["--watch", "--poll-interval", "500ms", "-j", "8", "--log-level", "info"])
            .ledger(&self.ledgers[slot]);
        self.hosts[slot] = Some(host.spawn());
    }

    /// A host that was not killed runs, whatever happens.
    fn see_that_they_live(&self) {
        for (slot, host) in self.hosts.iter().enumerate() {
            assert!(host.as_ref().is_none_or(|host| is_alive(host.id())), "host {slot} has ended by itself");
        }
    }

    /// The npm package's worker may end when the server does: then its locks are lifted, and it is started again.
    async fn start_node(&mut self) {
        if self.node.as_mut().is_some_and(|node| node.try_wait().is_ok_and(|ended| ended.is_none())) {
            return;
        }
        let Ok(client) = self.place.cluster.try_client("jobs").await else { return };
        if client.batch_execute(UNLOCK_NODE).await.is_err() {
            return;
        }
        let url = self.place.cluster.url();
        let mut command = node::script_with(Release::Newest, "fleet.cjs", &url, "graphile_worker");
        command.arg(self.node_ledger.path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.node = Some(command.spawn().expect("start a Node worker"));
    }

    async fn stop_node(&mut self) {
        if let Some(mut node) = self.node.take() {
            drop(node.stdin.take());
            if tokio::time::timeout(Duration::from_secs(20), node.wait()).await.is_err() {
                node.kill().await.expect("end the Node worker");
            }
        }
    }

    /// Waits until nothing is left but what has failed for good.
    async fn drain(&mut self) {
        let client = self.place.cluster.client().await;
        let deadline = Instant::now() + BOUND;
        // What has failed need not wait for its next attempt here.
        let hurry =
            "update graphile_worker._private_jobs set run_at = now() where run_at > now() and locked_at is null";
        client.batch_execute(UNLOCK_NODE).await.expect("lift the locks of the Node worker");
        let mut quarantined = 0;
        loop {
            self.see_that_they_live();
            // By the rules, a plugin whose jobs have crashed too often waits for its next build.
            let hosts = self.hosts.iter().flatten();
            let now = hosts.map(|host| host.events("plugin_quarantined").len()).sum();
            if std::mem::replace(&mut quarantined, now) < now {
                self.install_good();
            }
            client.batch_execute(hurry).await.expect("hurry what has failed");
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

fn from_environment<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    let Ok(text) = env::var(name) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}"))
}

/// Shown when the test fails, too.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        println!("the seed was {0}; TASKBAY_TORTURE_SEED={0} does the same again", self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_every_job_is_done_or_fails_by_the_rules() {
    let seed = Seed(from_environment("TASKBAY_TORTURE_SEED", SEED));
    let time = Duration::from_secs_f64(60.0 * from_environment("TASKBAY_TORTURE_MINUTES", MINUTES));
    println!("seed {}, {time:?}", seed.0);
    let mut arena = Arena::new().await;
    let load = Load::start(&arena.place.cluster);
    let mut adversary = Adversary::new(StdRng::seed_from_u64(seed.0));
    let until = Instant::now() + time;
    while Instant::now() < until {
        adversary.strike(&mut arena).await;
        arena.see_that_they_live();
    }
    adversary.make_up(&mut arena).await;
    let added = load.finish().await;
    let stopped = Instant::now();
    arena.stop_node().await;
    arena.drain().await;
    println!(
        "{} jobs added; everything was done {:?} after the adversary had stopped",
        added.certain.len(),
        stopped.elapsed()
    );
    invariants::check(&arena, &adversary, &added).await;
    for host in &mut arena.hosts {
        host.take().expect("it was started again").stop().await;
    }
}
