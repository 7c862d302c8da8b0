//! What one job costs when few or many are waiting. The clock starts when all programs are up, so a short drain is not
//! charged with the start.

use anyhow::Result;

use super::drain::Drain;
use crate::{
    bench::Bench,
    contender::Contender,
    figure::{Figure, Kind, Table, Unit},
    workload::{Task, Workload},
};

static KINDS: [Kind; 3] = [
    Kind { id: "backlog-small", table: Table::Backlog, title: "{backlog 0} waiting", unit: Unit::Microseconds },
    Kind { id: "backlog-medium", table: Table::Backlog, title: "{backlog 1} waiting", unit: Unit::Microseconds },
    Kind { id: "backlog-large", table: Table::Backlog, title: "{backlog 2} waiting", unit: Unit::Microseconds },
];

pub async fn measure(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (kind, jobs) in KINDS.iter().zip(bench.sizes.backlogs) {
        let drained = Drain::of(Workload::plain(Task::Noop, jobs)).run(bench, contender).await?;
        let each = drained.took.as_secs_f64() * 1e6 / f64::from(drained.done);
        figures.push(Figure { unfinished: drained.unfinished, ..Figure::new(kind, each) });
    }
    Ok(figures)
}
