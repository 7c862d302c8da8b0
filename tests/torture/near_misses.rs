//! Hosts that stand still, or whose packets are late, for less than the time after which others may take them for dead: nobody
//! does. Not a test but a measurement.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::{MINUTES, SEED, Seed, from_environment};
use crate::{
    harness::{
        program::{Running, Taskbay},
        proxy::{Proxy, Way},
    },
    outages::Place,
};

/// A host that gets no answer for eight seconds ends its connection, and with it its lock. A look goes there and back.
const LONGEST_DELAY: u64 = 2_000;
/// A host that stands still keeps its connection, however long; this is as long as it waits for an answer, about.
const LONGEST_STOP: u64 = 7_500;
const EVERY: Duration = Duration::from_millis(100);

/// What was seen of the locks by which hosts show that they live.
#[derive(Default)]
struct Locks {
    /// The connections that have held one.
    seen: HashSet<i32>,
    fewer_since: Option<Instant>,
    /// The longest time in which not all of them were there.
    longest_without: Duration,
    /// This program's own longest pause between two looks: how long the machine gave nobody time.
    longest_pause: Duration,
    last: Option<Instant>,
}

impl Locks {
    async fn look(&mut self, client: &Client) {
        let sql = "select pid from pg_locks where locktype = 'advisory' and classid = 1952543595 and granted";
        let rows = client.query(sql, &[]).await.expect("look at the locks");
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest_pause = self.longest_pause.max(now - last);
        }
        self.seen.extend(rows.iter().map(|row| row.get::<_, i32>(0)));
        if rows.len() < 2 {
            let since = *self.fewer_since.get_or_insert(now);
            self.longest_without = self.longest_without.max(now - since);
        } else {
            self.fewer_since = None;
        }
    }
}

/// What is done to one host at the moment, and until when.
#[derive(Default)]
struct Trouble {
    stopped: Option<Instant>,
    slowed: Option<Instant>,
}

async fn host(place: &Place, proxy: &Proxy) -> Running {
    let host = Taskbay::run(&place.cluster.url_by(proxy.port()), place.folder.path())
        .args(["--poll-interval", "500ms", "-j", "16", "--log-level", "info"])
        .ledger(&place.ledger)
        .spawn();
    host.event("worker_ready", |_| true).await;
    host
}

async fn add(client: &Client, ms: u64) {
    let sql = format!("select graphile_worker.add_job('echo', '{{\"sleep_ms\": {ms}, \"announce\": true}}')");
    client.batch_execute(&sql).await.expect("add a job");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes as long as TASKBAY_TORTURE_MINUTES says; run it for its numbers"]
async fn who_is_late_is_not_taken_for_dead_measured() {
    let seed = Seed(from_environment("TASKBAY_TORTURE_SEED", SEED));
    let time = Duration::from_secs_f64(60.0 * from_environment("TASKBAY_TORTURE_MINUTES", MINUTES));
    let mut random = StdRng::seed_from_u64(seed.0);
    let place = Place::new(&[]).await;
    let client = place.cluster.client().await;
    let proxies = [Proxy::start(place.cluster.port()).await, Proxy::start(place.cluster.port()).await];
    let hosts = [host(&place, &proxies[0]).await, host(&place, &proxies[1]).await];
    let mut troubles = [Trouble::default(), Trouble::default()];
    let (mut stops, mut delays, mut stopped_for, mut jobs) = (0, 0, Duration::ZERO, 0);
    let mut locks = Locks::default();
    let until = Instant::now() + time;
    loop {
        let now = Instant::now();
        let over = now >= until;
        for (slot, trouble) in troubles.iter_mut().enumerate() {
            if trouble.stopped.take_if(|due| over || *due <= now).is_some() {
                hosts[slot].signal(Signal::CONT);
            }
            if trouble.slowed.take_if(|due| over || *due <= now).is_some() {
                proxies[slot].set(Way::Pass).await;
            }
            if over {
                continue;
            }
            if trouble.stopped.is_none() && random.random_ratio(1, 40) {
                let length = Duration::from_millis(random.random_range(200..LONGEST_STOP));
                hosts[slot].signal(Signal::STOP);
                trouble.stopped = Some(now + length);
                (stops, stopped_for) = (stops + 1, stopped_for + length);
            }
            if trouble.slowed.is_none() && random.random_ratio(1, 40) {
                let delay = Duration::from_millis(random.random_range(20..LONGEST_DELAY));
                proxies[slot].set(Way::Delay(delay)).await;
                trouble.slowed = Some(now + Duration::from_millis(random.random_range(500..10_000)));
                delays += 1;
            }
        }
        if over {
            break;
        }
        if random.random_ratio(1, 2) {
            add(&client, random.random_range(500..4_000)).await;
            jobs += 1;
        }
        locks.look(&client).await;
        sleep(EVERY).await;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while client.query_one("select count(*) from graphile_worker.jobs", &[]).await.expect("count").get::<_, i64>(0) > 0
    {
        assert!(Instant::now() < deadline, "jobs are left");
        sleep(EVERY).await;
    }
    let mut runs: HashMap<i64, usize> = HashMap::new();
    for entry in place.ledger.entries().iter().filter(|entry| entry.event == "began") {
        *runs.entry(entry.job).or_default() += 1;
    }
    let again = runs.values().filter(|runs| **runs > 1).count();
    let takeovers: usize = hosts.iter().map(|host| host.events("taken_over").len()).sum();
    println!(
        "{time:?}: {stops} stops of up to {LONGEST_STOP} ms, together {stopped_for:?}; {delays} times packets were late by up to \
         {LONGEST_DELAY} ms; {jobs} jobs, {again} of them run more than once; locks held by {} connections, the longest time without \
         both {:?}; the longest pause of this program {:?}; takeovers: {takeovers}",
        locks.seen.len(),
        locks.longest_without,
        locks.longest_pause,
    );
    assert_eq!(runs.len(), jobs, "a job was lost");
    assert_eq!((takeovers, again), (0, 0), "a host that lives was taken for dead, or could not store what it had done");
    for host in hosts {
        host.stop().await;
    }
}
