//! The five scenarios by which Postgres queues are compared in public, with their measures printed: what is lost, what is done
//! twice, and for how long nothing was done.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio_postgres::Client;

use crate::{
    harness::{
        cluster::End,
        program::{Running, Taskbay},
    },
    outages::{Place, wait_until_drained_by},
};

const JOBS: i64 = 4_000;

fn host(place: &Place, args: &[&str]) -> Running {
    Taskbay::run(&place.cluster.url(), place.folder.path())
        .args(["--log-level", "info", "--poll-interval", "500ms", "-j", "8"])
        .args(args)
        .ledger(&place.ledger)
        .spawn()
}

async fn start(place: &Place, args: &[&str]) -> Running {
    let host = host(place, args);
    host.event("worker_ready", |_| true).await;
    host
}

/// Waits until the server has been up for so long that who is silent is taken for dead: after a start, all need time to come back.
async fn after_the_start(place: &Place) -> Client {
    let client = place.cluster.client().await;
    let up = "select extract(epoch from clock_timestamp() - pg_postmaster_start_time())::float8";
    while client.query_one(up, &[]).await.expect("ask for the server's age").get::<_, f64>(0) < 31.0 {
        // The age is what counts; no event comes with it.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    client
}

/// Waits until everything is done, and says what it has cost. At most so many jobs may have been done twice.
async fn measure(place: &Place, client: &Client, scenario: &str, since: Instant, most_twice: usize) {
    wait_until_drained_by(client).await;
    let runs = place.ledger.runs();
    let lost = JOBS - runs.len() as i64;
    let twice = runs.values().filter(|runs| **runs > 1).count();
    let mut ends: Vec<u64> =
        place.ledger.entries().iter().filter(|entry| entry.event == "ended").map(|entry| entry.now_us).collect();
    ends.sort_unstable();
    let pause = ends.windows(2).map(|two| two[1] - two[0]).max().map(Duration::from_micros).unwrap_or_default();
    println!(
        "{scenario}: jobs lost {lost}, jobs run twice {twice}, longest time without a job's end {:.2} s, everything done \
         {:.2} s after the last harm",
        pause.as_secs_f64(),
        since.elapsed().as_secs_f64()
    );
    assert_eq!(lost, 0);
    assert!(twice <= most_twice, "{twice} jobs were run twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_crashes() {
    let place = Place::new(&[]).await;
    let client = after_the_start(&place).await;
    let (mut first, second) = (start(&place, &[]).await, start(&place, &[]).await);
    place.add_stream(JOBS).await;
    place.ledger.wait_for(500).await;
    first.signal(Signal::KILL);
    let killed = Instant::now();
    first.ended().await;
    // What it had done and not yet stored: what runs at once, and a transaction that is open.
    measure(&place, &client, "worker crash", killed, 60).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarts() {
    let place = Place::new(&[]).await;
    let (first, second) = (start(&place, &[]).await, start(&place, &[]).await);
    place.add_stream(JOBS).await;
    place.ledger.wait_for(500).await;
    place.cluster.end(End::Fast).await;
    place.cluster.start_again().await;
    let client = place.cluster.client().await;
    measure(&place, &client, "Postgres restart", Instant::now(), 0).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_killed_again_and_again() {
    let place = Place::new(&[]).await;
    let client = after_the_start(&place).await;
    let stays = start(&place, &[]).await;
    place.add_stream(JOBS).await;
    let mut last = Instant::now();
    for kill in 1..=5 {
        let mut victim = start(&place, &[]).await;
        place.ledger.wait_for(kill * 500).await;
        victim.signal(Signal::KILL);
        last = Instant::now();
        victim.ended().await;
    }
    measure(&place, &client, "repeated kills", last, 300).await;
    stays.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_are_killed_again_and_again() {
    let place = Place::new(&[]).await;
    let client = place.cluster.client().await;
    let (first, second) = (start(&place, &[]).await, start(&place, &[]).await);
    place.add_stream(JOBS).await;
    let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'taskbay'";
    for round in 1..=15 {
        place.ledger.wait_for(round * 200).await;
        client.query_one(kill, &[]).await.expect("end its connections");
    }
    measure(&place, &client, "backend kills", Instant::now(), 0).await;
    first.stop().await;
    second.stop().await;
}

/// The server has fewer connections than the hosts want.
#[tokio::test(flavor = "multi_thread")]
async fn the_connections_run_out() {
    let place = Place::new(&["-c", "max_connections=16", "-c", "superuser_reserved_connections=0"]).await;
    let client = place.cluster.client().await;
    let first = start(&place, &["-j", "50"]).await;
    place.add_stream(JOBS).await;
    place.ledger.wait_for(500).await;
    let mut all = Vec::new();
    while let Ok(client) = place.cluster.try_client("jobs").await {
        all.push(client);
    }
    // These come to a server that is full.
    let others = [host(&place, &["-j", "50"]), host(&place, &["-j", "50"])];
    for other in &others {
        other.event("database_trouble", |_| true).await;
    }
    drop(all);
    let free = Instant::now();
    measure(&place, &client, "pool exhaustion", free, 0).await;
    first.stop().await;
    for other in others {
        other.event("worker_ready", |_| true).await;
        other.stop().await;
    }
}
