//! The crate `awa`, with the settings of its quick start and its default queue.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use awa::{
    Client, InsertOpts, InsertParams, JobArgs, JobError, JobResult, QueueConfig, QueueStorage, QueueStorageConfig,
    insert_with, migrations,
};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgPool, PgPoolOptions};

use crate::{BATCH, concurrency, each_of_the_input, ready_until_stopped, tasks, timed};

#[derive(Serialize, Deserialize, JobArgs)]
struct Noop {
    n: i64,
}

#[derive(Serialize, Deserialize, JobArgs)]
struct Sleep {
    n: i64,
}

#[derive(Serialize, Deserialize, JobArgs)]
struct Fail {
    n: i64,
}

#[derive(Serialize, Deserialize, JobArgs)]
struct Stamp {
    n: i64,
}

async fn pool(url: &str) -> Result<PgPool> {
    Ok(PgPoolOptions::new().max_connections(20).connect(url).await?)
}

/// A job that fails is not tried again: see `workload.rs` of the driver.
fn options(task: &str) -> InsertOpts {
    let usual = InsertOpts::default();
    InsertOpts { max_attempts: if task == "fail" { 1 } else { usual.max_attempts }, ..usual }
}

pub async fn prepare(url: &str) -> Result<()> {
    let pool = pool(url).await?;
    migrations::run(&pool).await?;
    // What its first worker does in a fresh database, where the jobs are added before there is one: without, they go to the
    // tables of earlier releases.
    let fresh: bool = sqlx::query_scalar("select awa.storage_auto_finalize_if_fresh('awa')").fetch_one(&pool).await?;
    ensure!(fresh, "awa does not take the database for a fresh one");
    Ok(())
}

/// By the call that it recommends to those who add many.
pub async fn add(url: &str, task: &str, count: i64) -> Result<()> {
    if !["noop", "sleep", "fail", "stamp"].contains(&task) {
        bail!("no task {task}");
    }
    let pool = pool(url).await?;
    let storage = QueueStorage::new(QueueStorageConfig::default())?;
    let job = |n| InsertParams { kind: task.to_owned(), args: serde_json::json!({ "n": n }), opts: options(task) };
    timed(async {
        for first in (0..count).step_by(BATCH) {
            let jobs: Vec<InsertParams> = (first..count.min(first + BATCH as i64)).map(job).collect();
            storage.enqueue_params_copy(&pool, &jobs).await?;
        }
        Ok(())
    })
    .await
}

pub async fn add_each(url: &str, task: &str) -> Result<()> {
    ensure!(task == "stamp", "only stamps are added one by one");
    let pool = pool(url).await?;
    each_of_the_input(|n| {
        let pool = pool.clone();
        async move {
            insert_with(&pool, &Stamp { n }, InsertOpts::default()).await?;
            Ok(())
        }
    })
    .await
}

pub async fn work(url: &str) -> Result<()> {
    let done = |result: Result<(), String>| match result {
        Ok(()) => Ok(JobResult::Completed),
        Err(message) => Err(JobError::retryable_msg(message)),
    };
    let max_workers = u32::try_from(concurrency(256)?)?;
    let client = Client::builder(pool(url).await?)
        .queue("default", QueueConfig { max_workers, ..QueueConfig::default() })
        .register::<Noop, _, _>(move |job, _| async move { done(tasks::run("noop", job.n).await) })
        .register::<Sleep, _, _>(move |job, _| async move { done(tasks::run("sleep", job.n).await) })
        .register::<Fail, _, _>(move |job, _| async move { done(tasks::run("fail", job.n).await) })
        .register::<Stamp, _, _>(move |job, _| async move { done(tasks::run("stamp", job.n).await) })
        .build()?;
    client.start().await?;
    ready_until_stopped().await?;
    client.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
