//! Compares Taskbay with other job queues, and with what Postgres itself can do, on one fresh Postgres: `scripts/bench`.
//!
//! # Where to add something
//!
//! * a row: an entry in `rows/mod.rs`
//! * a contender: an entry in `contender.rs`; if it has a schema of its own, one in `store.rs`, and its code in `../peers`
//!
//! # How one drain goes
//!
//! `database.rs` copies a database that `store.rs` filled, `gate.rs` locks its jobs, `contender.rs` and `fleet.rs` start the
//! processes, the gate opens, and `finish.rs` sees when the rows are gone. `rows/drain.rs` is that order.

mod adder;
mod bench;
mod clock;
mod contender;
mod database;
mod figure;
mod finish;
mod fleet;
mod gate;
mod machine;
mod options;
mod report;
mod rows;
mod server;
mod sizes;
mod stamps;
mod store;
mod workload;

use std::{fs, process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    bench::Bench,
    contender::{CONTENDERS, Contender},
    figure::{Measured, Results},
    machine::Machine,
    options::Options,
    report::Report,
    rows::{ROWS, Row},
};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<ExitCode> {
    let options = Options::read();
    if options.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    let (rows, contenders) = (options.rows()?, options.contenders()?);
    // From here on, a stop comes when what has been started can be removed.
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let bench = Bench::start(&options).await?;
    let machine = Machine::look(&bench, &options).await?;
    for (name, value) in &machine.about {
        println!("{name:<10} {value}");
    }
    let (mut results, mut failures) = (Results::default(), Vec::new());
    let interrupted = tokio::select! {
        measured = measure(&bench, &options, &rows, &contenders, &mut results, &mut failures) => { measured?; false }
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
    };
    let report = Report {
        machine: &machine,
        sizes: bench.sizes,
        rounds: options.rounds,
        results: &results,
        failures: &failures,
    };
    println!("{}", report.text());
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&report.json())?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &options.markdown {
        fs::write(path, report.markdown()).with_context(|| format!("write {}", path.display()))?;
    }
    drop(bench);
    if interrupted {
        eprintln!("Stopped before the end: the figures above are those that had been measured.");
        return Ok(ExitCode::from(130));
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything of a row comes before the next row, so that what is compared is measured soon after each other; each round
/// begins with another contender, because the first finds another machine than the last.
async fn measure(
    bench: &Bench,
    options: &Options,
    rows: &[&'static Row],
    contenders: &[&'static Contender],
    results: &mut Results,
    failures: &mut Vec<String>,
) -> Result<()> {
    for contender in contenders {
        if let Some(reason) = contender.missing(bench) {
            failures.push(format!("{}: {reason}", contender.name));
        }
    }
    for row in rows {
        let taking_part: Vec<&Contender> =
            contenders.iter().copied().filter(|one| (row.suits)(one) && one.missing(bench).is_none()).collect();
        for round in 0..options.rounds {
            for place in 0..taking_part.len() {
                let contender = taking_part[(place + round) % taking_part.len()];
                let began = Instant::now();
                eprint!("{:<13} round {} {:<20}", row.name, round + 1, contender.name);
                match (row.measure)(bench, contender).await {
                    Ok(figures) => {
                        eprintln!("{:>7.1} s", began.elapsed().as_secs_f64());
                        let name = contender.name;
                        results.all.extend(figures.into_iter().map(|figure| Measured {
                            contender: name,
                            round,
                            figure,
                        }));
                    }
                    Err(error) => {
                        eprintln!(" failed: {error:#}");
                        failures.push(format!("{} of {}, round {}: {error:#}", row.name, contender.name, round + 1));
                    }
                }
            }
        }
        bench.remove_templates().await?;
    }
    Ok(())
}

fn list() {
    println!("Rows:");
    for row in ROWS {
        println!("  {:<20}{}", row.name, row.about);
    }
    println!("Contenders:");
    for contender in CONTENDERS {
        println!("  {:<20}{}", contender.name, contender.about);
    }
}
