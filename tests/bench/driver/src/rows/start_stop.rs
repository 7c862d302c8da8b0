//! From the start of a program until it works, and from the signal until it has ended.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::{
    adder::Adder,
    bench::Bench,
    clock,
    contender::{Contender, Start},
    figure::{Figure, Kind, Table, Unit, quantile},
    stamps::Stamps,
};

static START: Kind =
    Kind { id: "start", table: Table::Programs, title: "start to first job", unit: Unit::Milliseconds };
static STOP: Kind = Kind { id: "stop", table: Table::Programs, title: "stop when idle", unit: Unit::Milliseconds };
static MEMORY: Kind = Kind { id: "idle-memory", table: Table::Programs, title: "memory, idle", unit: Unit::Megabytes };

/// After the first job, so that the program is idle when it is told to stop.
const REST: Duration = Duration::from_millis(500);

pub async fn measure(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    let database = bench.database(contender.store, None).await?;
    let stamps = Stamps::new(bench.folder())?;
    let adder = Adder::start(bench, contender, &database).await?;
    let (mut starts, mut stops, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..i64::from(bench.sizes.starts) {
        adder.add(n).await?;
        let began = clock::now();
        let fleet = contender.start(bench, &database.url, Start { stamps: Some(&stamps.path), ..Start::default() })?;
        starts.push((stamps.of(n).await? - began) as f64 / 1e6);
        sleep(REST).await;
        memory.push(fleet.memory() as f64 / 1e6);
        stops.push(fleet.stop().await?.as_secs_f64() * 1e3);
    }
    drop(adder);
    bench.remove(&database).await?;
    Ok(vec![
        Figure::new(&START, quantile(starts, 0.5)),
        Figure::new(&STOP, quantile(stops, 0.5)),
        Figure::new(&MEMORY, quantile(memory, 0.5)),
    ])
}
