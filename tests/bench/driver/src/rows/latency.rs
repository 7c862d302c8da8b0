//! How soon a job begins that is added while the contender has nothing to do, or little.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use tokio::time::{sleep, sleep_until};

use crate::{
    adder::{Adder, Call},
    bench::Bench,
    contender::{Contender, Start},
    figure::{Figure, Kind, Table, Unit, quantile},
    stamps::Stamps,
};

static IDLE: [Kind; 7] = kinds(
    Table::IdleLatency,
    ["idle-p50", "idle-p99", "idle-max", "idle-commit-p50", "idle-commit-p99", "idle-commit-max", "idle-call-p50"],
);
static BUSY: [Kind; 7] = kinds(
    Table::BusyLatency,
    ["busy-p50", "busy-p99", "busy-max", "busy-commit-p50", "busy-commit-p99", "busy-commit-max", "busy-call-p50"],
);
static BARE_CALL: [Kind; 2] = [
    Kind { id: "bare-call-p50", ..kind(Table::IdleLatency, "p50 of the call, nobody working") },
    Kind { id: "bare-call-p99", ..kind(Table::IdleLatency, "p99 of the call, nobody working") },
];

const TITLES: [&str; 7] = [
    "p50 from before the call",
    "p99 from before the call",
    "max from before the call",
    "p50 from its commit",
    "p99 from its commit",
    "max from its commit",
    "p50 of the call",
];

/// Jobs before the first that counts: connections, caches and code are warm after them.
const WARM_UP: i64 = 50;
/// One at a time takes some contenders, which look for jobs only at times, too long for 2,000 of them.
const LONGEST: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_millis(2);

const fn kind(table: Table, title: &'static str) -> Kind {
    Kind { id: "", table, title, unit: Unit::Milliseconds }
}

const fn kinds(table: Table, ids: [&'static str; 7]) -> [Kind; 7] {
    let mut kinds = [const { kind(Table::IdleLatency, "") }; 7];
    let mut place = 0;
    while place < 7 {
        kinds[place] = Kind { id: ids[place], table, title: TITLES[place], unit: Unit::Milliseconds };
        place += 1;
    }
    kinds
}

/// One job is added after the other has begun and some time has passed.
pub async fn idle(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    measure(bench, contender, &IDLE, async |adder, stamps| {
        let began = Instant::now();
        let mut calls = Vec::new();
        for n in 0..i64::from(bench.sizes.latency) {
            calls.push((n, adder.add(n).await?));
            stamps.of(n).await?;
            pause(n).await;
            if began.elapsed() > LONGEST {
                break;
            }
        }
        Ok(calls)
    })
    .await
}

/// Jobs are added at their times, whatever has become of those before them.
pub async fn busy(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    measure(bench, contender, &BUSY, async |adder, _| {
        let began = tokio::time::Instant::now();
        let one = async |n: i64| {
            sleep_until(began + EVERY * u32::try_from(n)?).await;
            Ok((n, adder.add(n).await?))
        };
        let all = (0..i64::from(bench.sizes.latency)).map(one);
        try_join_all(all).await
    })
    .await
}

/// Those who run jobs, and the bare client that does it in its own process.
pub fn listens(contender: &Contender) -> bool {
    contender.runs_jobs() || contender.name == "bare-express"
}

/// Which adds by another call than the others.
pub fn adds_in_its_own_way(contender: &Contender) -> bool {
    ["taskbay", "graphile_worker", "awa", "riverqueue"].contains(&contender.name)
}

pub async fn bare_call(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    let database = bench.database(contender.store, None).await?;
    let adder = Adder::start(bench, contender, &database).await?;
    let mut took = Vec::new();
    for n in -WARM_UP..i64::from(bench.sizes.latency) {
        let call = adder.add(n).await?;
        if n >= 0 {
            took.push(milliseconds(call.began, call.ended));
        }
        pause(n).await;
    }
    drop(adder);
    bench.remove(&database).await?;
    let quantiles = [quantile(took.clone(), 0.5), quantile(took, 0.99)];
    Ok(BARE_CALL.iter().zip(quantiles).map(|(kind, value)| Figure::new(kind, value)).collect())
}

async fn measure(
    bench: &Bench,
    contender: &Contender,
    kinds: &'static [Kind; 7],
    add: impl AsyncFnOnce(&Adder, &Stamps) -> Result<Vec<(i64, Call)>>,
) -> Result<Vec<Figure>> {
    let database = bench.database(contender.store, None).await?;
    let stamps = Stamps::new(bench.folder())?;
    let mut fleet = contender.start(bench, &database.url, Start { stamps: Some(&stamps.path), ..Start::default() })?;
    let adder = Adder::start(bench, contender, &database).await?;
    for n in -WARM_UP..0 {
        adder.add(n).await?;
        stamps.of(n).await?;
    }
    sleep(Duration::from_millis(500)).await;
    fleet.check()?;
    let calls = add(&adder, &stamps).await?;
    ensure!(!calls.is_empty(), "no job was added");
    let (mut from_call, mut from_commit, mut of_call) = (Vec::new(), Vec::new(), Vec::new());
    for (n, call) in calls {
        let ran = stamps.of(n).await?;
        from_call.push(milliseconds(call.began, ran));
        from_commit.push(milliseconds(call.ended, ran));
        of_call.push(milliseconds(call.began, call.ended));
    }
    fleet.stop().await?;
    drop(adder);
    bench.remove(&database).await?;
    let three = |values: Vec<f64>| [0.5, 0.99, 1.0].map(|part| quantile(values.clone(), part));
    let values = three(from_call).into_iter().chain(three(from_commit)).chain([quantile(of_call, 0.5)]);
    Ok(kinds.iter().zip(values).map(|(kind, value)| Figure::new(kind, value)).collect())
}

/// Between 5 and 15 ms, so that no contender's own rhythm is met at the same place again and again.
async fn pause(n: i64) {
    sleep(Duration::from_micros(5_000 + n.unsigned_abs() * 7_919 % 10_000)).await;
}

fn milliseconds(from: i64, to: i64) -> f64 {
    (to - from) as f64 / 1e6
}
