//! How fast one, two and more hosts drain one database together.

use anyhow::Result;

use super::drain::Drain;
use crate::{
    bench::Bench,
    contender::Contender,
    figure::{Figure, Kind, Table, Unit},
    workload::{Task, Workload},
};

static KINDS: [(usize, Kind); 5] = [
    (1, kind("hosts-1", "1 host")),
    (2, kind("hosts-2", "2 hosts")),
    (4, kind("hosts-4", "4 hosts")),
    (8, kind("hosts-8", "8 hosts")),
    (16, kind("hosts-16", "16 hosts")),
];

const fn kind(id: &'static str, title: &'static str) -> Kind {
    Kind { id, table: Table::Hosts, title, unit: Unit::PerSecond }
}

pub async fn measure(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    let drain = Drain::of(Workload::plain(Task::Noop, bench.sizes.hosts));
    let mut figures = Vec::new();
    for (processes, kind) in &KINDS {
        let several = Contender { processes: *processes, ..*contender };
        figures.push(drain.run(bench, &several).await?.rate(kind));
    }
    Ok(figures)
}
