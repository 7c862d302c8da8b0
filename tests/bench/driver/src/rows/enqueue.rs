//! Adding many jobs, by the library of each.

use std::{
    fs::File,
    io::{BufWriter, Write},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::{
    bench::Bench,
    contender::{Contender, Program},
    database::Database,
    figure::{Figure, Kind, Table, Unit},
};

static LIBRARY: Kind = Kind { id: "enqueue", table: Table::Programs, title: "adding {drain}", unit: Unit::PerSecond };
static FILE: Kind =
    Kind { id: "enqueue-file", table: Table::Programs, title: "`add --file`, start included", unit: Unit::PerSecond };

/// One of each library.
pub fn adds(contender: &Contender) -> bool {
    ["taskbay", "node", "graphile_worker", "awa", "riverqueue"].contains(&contender.name)
}

pub async fn measure(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    let jobs = bench.sizes.drain;
    let database = bench.database(contender.store, None).await?;
    let mut command = match contender.program {
        Program::Node { .. } => bench.node("add.cjs", &database.url),
        _ => {
            let mut command = bench.program(&bench.paths.peers, &database.url);
            command.args([contender.name, "add"]);
            command
        }
    };
    command.args(["noop", &jobs.to_string()]);
    let output = finished(command).await?;
    let nanoseconds: f64 = output.trim().parse().with_context(|| format!("the time that adding took: {output:?}"))?;
    let mut figures = vec![Figure::new(&LIBRARY, f64::from(jobs) / (nanoseconds / 1e9))];
    bench.remove(&database).await?;
    if matches!(contender.program, Program::Taskbay { .. }) && bench.taskbay_knows("--file") {
        let database = bench.database(contender.store, None).await?;
        figures.push(Figure::new(&FILE, f64::from(jobs) / from_file(bench, &database, jobs).await?));
        bench.remove(&database).await?;
    }
    Ok(figures)
}

/// The seconds that it takes.
async fn from_file(bench: &Bench, database: &Database, jobs: u32) -> Result<f64> {
    let path = bench.folder().join("jobs.ndjson");
    let mut file = BufWriter::new(File::create(&path).context("write a file of jobs")?);
    for n in 0..jobs {
        writeln!(file, "{{\"identifier\":\"noop\",\"payload\":{{\"n\":{n}}}}}").context("write a file of jobs")?;
    }
    file.flush().context("write a file of jobs")?;
    let mut command = bench.program(&bench.paths.taskbay, &database.url);
    command.args(["add", "--file"]).arg(&path);
    let began = Instant::now();
    finished(command).await?;
    let took = began.elapsed().as_secs_f64();
    std::fs::remove_file(&path).context("remove the file of jobs")?;
    Ok(took)
}

async fn finished(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().await.context("start the program that adds jobs")?;
    ensure!(output.status.success(), "adding jobs: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
