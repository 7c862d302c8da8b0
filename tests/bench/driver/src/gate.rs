//! Holds a contender at the start: it is up, connected, and waits for the jobs' table, which this has locked.
//!
//! The clock of a drain must not count how long a program takes to start, which is a row of its own. Starting it on an empty
//! table and adding the jobs then would measure the adding. Jobs that wait for a later time and are released by an update
//! would be in the table twice, once dead. The first job that is gone is no start either, because some delete their first
//! one by one and some their first five thousand. Behind a lock, everybody's first claim waits for the same moment, and
//! Postgres has nothing more to do than without it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio_postgres::Client;

use crate::{bench::Bench, contender::Contender, database::Database, fleet::Fleet};

/// After the first claim waits: for whatever else the program does at its start.
const REST: Duration = Duration::from_millis(250);
const DEADLINE: Duration = Duration::from_secs(60);

/// Open when it is dropped.
#[derive(Debug)]
pub struct Gate {
    client: Client,
    table: &'static str,
}

impl Gate {
    pub async fn close(bench: &Bench, contender: &Contender, database: &Database) -> Result<Self> {
        let client = bench.server.connect(&database.name).await?;
        let table = contender.store.gate();
        let lock = format!("begin; lock table {table} in access exclusive mode");
        client.batch_execute(&lock).await.with_context(|| format!("lock {table}"))?;
        Ok(Self { client, table })
    }

    /// Waits until each process of the contender stands before it.
    pub async fn wait_for(&self, fleet: &mut Fleet, processes: usize) -> Result<()> {
        // Not by connections: a Taskbay host that starts also searches for the jobs of dead hosts, on another one.
        let waiting = "select count(distinct application_name) from pg_locks join pg_stat_activity using (pid)
            where not granted and relation = to_regclass($1)";
        let waiting = self.client.prepare(waiting).await.context("prepare to look at locks")?;
        let asked = Instant::now();
        loop {
            fleet.check()?;
            // Within a transaction, Postgres shows the connections as it showed them first.
            self.client.batch_execute("select pg_stat_clear_snapshot()").await.context("look at connections")?;
            let count: i64 = self.client.query_one(&waiting, &[&self.table]).await.context("look at locks")?.get(0);
            if usize::try_from(count)? >= processes {
                break;
            }
            if asked.elapsed() > DEADLINE {
                bail!("{count} of {processes} processes asked for jobs within {DEADLINE:?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(REST).await;
        Ok(())
    }

    /// Lets them go. Returns when that was.
    pub async fn open(self) -> Result<Instant> {
        // Not by a commit, which waits for the disk.
        self.client.batch_execute("rollback").await.context("unlock the jobs' table")?;
        Ok(Instant::now())
    }
}
