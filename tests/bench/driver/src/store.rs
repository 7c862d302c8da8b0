//! What a job queue has in the database: how its schema gets there, how jobs are added, and how to see that they are gone.
//!
//! A contender with a schema of its own is one more [`Store`], of which everything is in this file.

use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use tokio_postgres::Client;

use crate::{bench::Bench, workload::Workload};

/// A schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Store {
    /// Revision 20 of graphile-worker's, which Taskbay and the Node package share.
    Graphile,
    /// That of the crate `graphile_worker`, which is made by itself and has the same names.
    GraphileCrate,
    Awa,
    River,
}

/// How many jobs are watched one by one. Watching more would be work for Postgres that shows in the figures.
const MOST: u32 = 50;

impl Store {
    /// Of those `peers` that install the schema.
    fn peer(self) -> Option<&'static str> {
        match self {
            Self::Graphile => None,
            Self::GraphileCrate => Some("graphile_worker"),
            Self::Awa => Some("awa"),
            Self::River => Some("riverqueue"),
        }
    }

    /// Whether jobs in a named queue run one at a time.
    pub fn has_queues(self) -> bool {
        matches!(self, Self::Graphile | Self::GraphileCrate)
    }

    /// Installs the schema.
    pub async fn prepare(self, bench: &Bench, url: &str) -> Result<()> {
        let mut command = match self.peer() {
            None => {
                let mut command = bench.program(&bench.paths.taskbay, url);
                command.args(["migrate", "--quiet"]);
                command
            }
            Some(peer) => {
                let mut command = bench.program(&bench.paths.peers, url);
                command.args([peer, "prepare"]);
                command
            }
        };
        let output = command.stdin(Stdio::null()).output().await.context("start the program that installs a schema")?;
        ensure!(output.status.success(), "{self:?}: schema: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Adds the jobs, ten thousand at a time.
    pub async fn seed(self, bench: &Bench, url: &str, client: &Client, workload: &Workload) -> Result<()> {
        if self.has_queues() {
            return add_by_function(client, workload).await;
        }
        ensure!(workload.queues == 0 && workload.stuck == 0, "{self:?} has no named queues");
        let Some(peer) = self.peer() else { bail!("{self:?} has neither queues nor a program") };
        let mut command = bench.program(&bench.paths.peers, url);
        command.args([peer, "add", workload.task.name(), &workload.jobs.to_string()]);
        let output = command.stdin(Stdio::null()).output().await.context("start the program that adds jobs")?;
        ensure!(output.status.success(), "{self:?}: add: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// The table that all claims need, and that can be locked to hold contenders at the start.
    pub fn gate(self) -> &'static str {
        match self {
            Self::Graphile | Self::GraphileCrate => "graphile_worker._private_jobs",
            Self::Awa => "awa.ready_entries",
            Self::River => "river_job",
        }
    }

    /// Selects the ids of the jobs that were added last.
    pub fn last(self) -> Option<String> {
        match self {
            Self::Graphile | Self::GraphileCrate => {
                Some("select id from graphile_worker._private_jobs order by id desc limit 50".to_owned())
            }
            Self::Awa => None,
            Self::River => Some("select id from river_job order by id desc limit 50".to_owned()),
        }
    }

    /// Selects the ids of all jobs that can still run or are running, or of the first 50 of them.
    pub fn left(self, workload: &Workload) -> String {
        match self {
            Self::Awa => format!("select generate_series(1, {} - ({AWA_DONE}))::int8 limit {MOST}", workload.jobs),
            _ => format!("select id from {} where {} limit {MOST}", self.gate(), self.unfinished()),
        }
    }

    /// The same of those whose ids are $1, which costs nearly nothing.
    pub fn left_of(self) -> Option<String> {
        match self {
            Self::Awa => None,
            _ => Some(format!("select id from {} where id = any ($1) and {}", self.gate(), self.unfinished())),
        }
    }

    /// How many are left.
    pub fn count_left(self, workload: &Workload) -> String {
        match self {
            Self::Awa => format!("select ({} - ({AWA_DONE}))::int8", workload.jobs),
            _ => format!("select count(*) from {} where {}", self.gate(), self.unfinished()),
        }
    }

    fn unfinished(self) -> &'static str {
        match self {
            // Those that have failed for good stay, and so do stuck ones; all of these are neither available nor locked.
            Self::Graphile | Self::GraphileCrate => {
                "(is_available or locked_at is not null) and (job_queue_id is null or job_queue_id <> all (array(
                     select id from graphile_worker._private_job_queues where locked_by = 'elsewhere')))"
            }
            Self::Awa => "true",
            Self::River => "state not in ('completed', 'discarded', 'cancelled')",
        }
    }
}

/// It notes what is done in four places, of which the first is the usual one; jobs do not leave the table that they came to.
const AWA_DONE: &str = "
    coalesce((select sum(completed_count) from awa.receipt_completion_batches), 0)
    + (select count(*) from awa.done_entries)
    + (select count(*) from awa.dlq_entries)
    + coalesce((select sum(pruned_completed_count + pruned_failed_count) from awa.queue_terminal_rollups), 0)";

async fn add_by_function(client: &Client, workload: &Workload) -> Result<()> {
    let Workload { task, jobs, queues, stuck } = *workload;
    let add = |queue: &str, from: u32, to: u32| {
        format!(
            "select count(*) from graphile_worker.add_jobs(array(
                 select row('{}', json_build_object('n', n), {queue}, null, {}::int2, null, null, null)
                     ::graphile_worker.job_spec
                 from generate_series({from}, {to} - 1) as n))",
            task.name(),
            task.max_attempts(),
        )
    };
    let batches = |count: u32| (0..count).step_by(10_000).map(move |from| (from, count.min(from + 10_000)));
    for (from, to) in batches(stuck) {
        client.batch_execute(&add("'stuck ' || n % 2", from, to)).await.context("add jobs that are stuck")?;
    }
    client
        .batch_execute("update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'elsewhere'")
        .await
        .context("lock the queues of the jobs that are stuck")?;
    let queue = if queues == 0 { "null".to_owned() } else { format!("'queue ' || n % {queues}") };
    for (from, to) in batches(jobs) {
        client.batch_execute(&add(&queue, from, to)).await.context("add jobs")?;
    }
    Ok(())
}
