//! The crate `riverqueue`, as in its quick start, with as many workers as River's own benchmark has.

use anyhow::{Result, anyhow, bail, ensure};
use riverqueue::{
    BoxError, Client, Job, JobArgs, QueueConfig, WorkContext, WorkOutcome, Workers, migrate::PostgresMigrator,
    sqlx::PgPool,
};
use serde::{Deserialize, Serialize};

use crate::{BATCH, concurrency, each_of_the_input, ready_until_stopped, tasks, timed};

macro_rules! task {
    ($name:ident, $kind:literal, $function:ident, $max_attempts:literal) => {
        #[derive(Clone, Debug, Deserialize, JobArgs, Serialize)]
        #[river(kind = $kind, max_attempts = $max_attempts)]
        struct $name {
            n: i64,
        }

        async fn $function(_: WorkContext, job: Job<$name>) -> Result<WorkOutcome, BoxError> {
            tasks::run($kind, job.args.n).await.map(|()| WorkOutcome::Complete).map_err(Into::into)
        }
    };
}

task!(Noop, "noop", noop, 25);
task!(Sleep, "sleep", sleep, 25);
// A job that fails is not tried again: see `workload.rs` of the driver.
task!(Fail, "fail", fail, 1);
task!(Stamp, "stamp", stamp, 25);

pub async fn prepare(url: &str) -> Result<()> {
    PostgresMigrator::new(PgPool::connect(url).await?).migrate_up().await?;
    Ok(())
}

pub async fn add(url: &str, task: &str, count: i64) -> Result<()> {
    let client = Client::builder(PgPool::connect(url).await?).build()?;
    timed(async {
        for first in (0..count).step_by(BATCH) {
            let numbers = first..count.min(first + BATCH as i64);
            match task {
                "noop" => client.insert_many(numbers.map(|n| Noop { n })).await.map(drop)?,
                "sleep" => client.insert_many(numbers.map(|n| Sleep { n })).await.map(drop)?,
                "fail" => client.insert_many(numbers.map(|n| Fail { n })).await.map(drop)?,
                "stamp" => client.insert_many(numbers.map(|n| Stamp { n })).await.map(drop)?,
                _ => bail!("no task {task}"),
            }
        }
        Ok(())
    })
    .await
}

pub async fn add_each(url: &str, task: &str) -> Result<()> {
    ensure!(task == "stamp", "only stamps are added one by one");
    let client = Client::builder(PgPool::connect(url).await?).build()?;
    each_of_the_input(|n| {
        let client = client.clone();
        async move {
            client.insert(Stamp { n }).await?;
            Ok(())
        }
    })
    .await
}

pub async fn work(url: &str) -> Result<()> {
    let mut workers = Workers::new();
    workers.add_fn(noop)?;
    workers.add_fn(sleep)?;
    workers.add_fn(fail)?;
    workers.add_fn(stamp)?;
    let client = Client::builder(PgPool::connect(url).await?)
        .workers(workers)
        .queue("default", QueueConfig::new(concurrency(2_000)?))
        .build()?;
    let mut running = client.start()?;
    ready_until_stopped().await?;
    running.stop().await.map_err(|error| anyhow!("{error}"))?;
    Ok(())
}
