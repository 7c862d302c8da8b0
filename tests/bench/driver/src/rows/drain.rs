//! Works what is there until it is gone.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio_postgres::Client;

use crate::{
    bench::Bench,
    contender::{Contender, Start},
    database::{Database, all_disconnected},
    figure::{Figure, Kind, Table, Unit},
    finish::{Finish, Finished},
    fleet::{Fleet, memory_of_tree},
    gate::Gate,
    workload::{Task, Workload},
};

static PLAIN: Kind = drained("drain", "{drain} no-op");
static SLEEPING: Kind = drained("sleep", "{drain} of 1 ms, 100 at once");
static FAILING: Kind = drained("failing", "{drain}, 10 % fail");
static QUEUED: Kind = drained("queues", "{queued} in 100 queues");
static STUCK: Kind = drained("stuck", "{drain} behind {stuck} stuck");
static PINNED: Kind = drained("pinned", "{drain}, pinned horizon");
static MEMORY: Kind =
    Kind { id: "drain-memory", table: Table::Programs, title: "memory, draining", unit: Unit::Megabytes };
static WAL: Kind = Kind { id: "drain-wal", table: Table::Postgres, title: "WAL", unit: Unit::Bytes };
static COMMITS: Kind = Kind { id: "drain-commits", table: Table::Postgres, title: "commits", unit: Unit::EachJob };
static DEAD: Kind = Kind { id: "drain-dead", table: Table::Postgres, title: "dead rows", unit: Unit::EachJob };

const fn drained(id: &'static str, title: &'static str) -> Kind {
    Kind { id, table: Table::Drains, title, unit: Unit::PerSecond }
}

pub async fn plain(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    let drained = Drain::of(Workload::plain(Task::Noop, bench.sizes.drain)).run(bench, contender).await?;
    let jobs = f64::from(drained.done);
    let mut figures = vec![
        drained.rate(&PLAIN),
        Figure::new(&WAL, drained.wal / jobs),
        Figure::new(&COMMITS, drained.commits / jobs),
        Figure::new(&DEAD, drained.dead_rows / jobs),
    ];
    if contender.runs_jobs() {
        figures.push(Figure::new(&MEMORY, drained.memory as f64 / 1e6));
    }
    Ok(figures)
}

pub async fn sleeping(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    let workload = Workload::plain(Task::Sleep, bench.sizes.drain);
    let drain = Drain { concurrency: Some(100), ..Drain::of(workload) };
    Ok(vec![drain.run(bench, contender).await?.rate(&SLEEPING)])
}

pub async fn failing(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    let drain = Drain::of(Workload::plain(Task::Fail, bench.sizes.drain));
    Ok(vec![drain.run(bench, contender).await?.rate(&FAILING)])
}

pub async fn queued(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    let drain = Drain::of(Workload { queues: 100, ..Workload::plain(Task::Noop, bench.sizes.queued) });
    Ok(vec![drain.run(bench, contender).await?.rate(&QUEUED)])
}

pub async fn stuck(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    let drain = Drain::of(Workload { stuck: bench.sizes.stuck, ..Workload::plain(Task::Noop, bench.sizes.drain) });
    Ok(vec![drain.run(bench, contender).await?.rate(&STUCK)])
}

pub async fn pinned(bench: &Bench, contender: &Contender) -> Result<Vec<Figure>> {
    let drain = Drain { pinned: true, ..Drain::of(Workload::plain(Task::Noop, bench.sizes.drain)) };
    Ok(vec![drain.run(bench, contender).await?.rate(&PINNED)])
}

/// A drain, and under which conditions.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    workload: Workload,
    concurrency: Option<usize>,
    /// Whether a transaction elsewhere still needs all rows as they were before.
    pinned: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    pub done: u32,
    pub took: Duration,
    pub unfinished: bool,
    /// The most that was seen at once, in bytes.
    memory: u64,
    wal: f64,
    commits: f64,
    dead_rows: f64,
}

impl Drained {
    pub fn rate(&self, kind: &'static Kind) -> Figure {
        let value = f64::from(self.done) / self.took.as_secs_f64();
        Figure { unfinished: self.unfinished, ..Figure::new(kind, value) }
    }
}

impl Drain {
    pub fn of(workload: Workload) -> Self {
        Self { workload, concurrency: None, pinned: false }
    }

    pub async fn run(&self, bench: &Bench, contender: &Contender) -> Result<Drained> {
        let database = bench.database(contender.store, Some(self.workload)).await?;
        let admin = bench.server.connect("postgres").await?;
        let finish =
            Finish::prepare(bench.server.connect(&database.name).await?, contender.store, &self.workload).await?;
        let pin = if self.pinned { Some(pin(bench, &database).await?) } else { None };
        let gate = Gate::close(bench, contender, &database).await?;
        let how = Start { concurrency: self.concurrency, ..Start::default() };
        let mut fleet = contender.start(bench, &database.url, how)?;
        gate.wait_for(&mut fleet, contender.processes).await?;
        let wal = wal_position(&admin).await?;
        let began = gate.open().await?;
        let (finished, memory) = watched(&mut fleet, finish, began, bench.limit).await?;
        fleet.stop().await?;
        drop(pin);
        all_disconnected(&admin, &database.name).await?;
        let drained = Drained {
            done: self.workload.jobs - finished.left,
            took: finished.took,
            unfinished: finished.left > 0,
            memory,
            wal: wal_position(&admin).await? - wal,
            // A copy of a database begins to count anew.
            commits: commits(&admin, &database.name).await? - f64::from(finished.statements),
            dead_rows: dead_rows(&bench.server.connect(&database.name).await?).await?,
        };
        bench.remove(&database).await?;
        Ok(drained)
    }
}

/// Waits for the end, and looks at the memory meanwhile.
async fn watched(fleet: &mut Fleet, finish: Finish, began: Instant, limit: Duration) -> Result<(Finished, u64)> {
    let ids: Vec<u32> = fleet.ids().collect();
    let most = Cell::new(0);
    let sampling = async {
        loop {
            let now = ids.iter().map(|id| memory_of_tree(*id)).sum();
            most.set(most.get().max(now));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        finished = finish.wait(fleet, began, limit) => Ok((finished?, most.get())),
        () = sampling => unreachable!("it has no end"),
    }
}

/// Holds a snapshot for as long as the connection lives.
async fn pin(bench: &Bench, database: &Database) -> Result<Client> {
    let client = bench.server.connect(&database.name).await?;
    let begin = "begin isolation level repeatable read; select count(*) from pg_class";
    client.batch_execute(begin).await.context("hold a snapshot")?;
    Ok(client)
}

async fn wal_position(admin: &Client) -> Result<f64> {
    let position = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
    Ok(admin.query_one(position, &[]).await.context("ask for the position in the log")?.get(0))
}

async fn commits(admin: &Client, database: &str) -> Result<f64> {
    let commits = "select xact_commit::float8 from pg_stat_database where datname = $1";
    Ok(admin.query_one(commits, &[&database]).await.context("ask for the number of commits")?.get(0))
}

/// How many rows were updated or deleted, whether their old versions have been vacuumed since or not.
async fn dead_rows(client: &Client) -> Result<f64> {
    let dead = "select coalesce(sum(n_tup_upd + n_tup_del), 0)::float8 from pg_stat_user_tables";
    Ok(client.query_one(dead, &[]).await.context("ask for the number of dead rows")?.get(0))
}
