//! A client that claims and completes jobs of one task and does nothing else: what Postgres itself can do. Only for latencies it
//! runs them, in its own process and one after the other.

use std::{future::poll_fn, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::sync::Notify;
use tokio_postgres::{
    AsyncMessage, Client, NoTls, Row,
    types::{ToSql, Type},
};

use crate::{ready_until_stopped, tasks::run};

const BATCH: i64 = 500;

#[derive(Clone, Copy)]
pub enum Lane {
    /// Marks by one update, deletes later.
    Marked,
    /// Selects for update and deletes in one transaction.
    Express,
}

const CHOOSE: &str = "select id from graphile_worker._private_jobs
    where is_available = true and job_queue_id is null and run_at <= now() and task_id = any ($1)
    order by priority, run_at limit $2 for update skip locked";

pub async fn work(url: &str, lane: Lane) -> Result<()> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    let added = listen(url).await?;
    let working = tokio::spawn(async move {
        match lane {
            Lane::Marked => marked(client).await,
            Lane::Express => express(client, added).await,
        }
    });
    tokio::select! {
        stopped = ready_until_stopped() => stopped?,
        ended = working => ended??,
    }
    Ok(())
}

async fn tasks(client: &Client) -> Result<Vec<i32>> {
    let task = if stamps() { "stamp" } else { "noop" };
    let add = "insert into graphile_worker._private_tasks (identifier) values ($1) on conflict do nothing";
    client.execute(add, &[&task]).await?;
    let of_the_task = "select id from graphile_worker._private_tasks where identifier = $1";
    Ok(client.query(of_the_task, &[&task]).await?.iter().map(|row| row.get(0)).collect())
}

async fn marked(client: Client) -> Result<()> {
    let tasks = tasks(&client).await?;
    let claim = format!(
        "update graphile_worker._private_jobs job
         set attempts = attempts + 1, locked_by = 'bare', locked_at = now()
         from ({CHOOSE}) chosen where job.id = chosen.id returning job.id, job.payload::text"
    );
    let claim = client.prepare_typed(&claim, &[Type::INT4_ARRAY, Type::INT8]).await?;
    let delete = client.prepare("delete from graphile_worker._private_jobs where id = any ($1)").await?;
    let mut claimed: Vec<i64> = Vec::new();
    loop {
        let (completing, claiming): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 2]) =
            ([&claimed], [&tasks, &BATCH]);
        // Both on their way at once.
        let (deleted, rows) = tokio::join!(client.execute(&delete, &completing), client.query(&claim, &claiming));
        deleted?;
        claimed = rows?.iter().map(|row| row.get(0)).collect();
        if claimed.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// One transaction after the other; the end of each travels with the beginning of the next.
async fn express(client: Client, added: Arc<Notify>) -> Result<()> {
    let tasks = tasks(&client).await?;
    let choose = CHOOSE.replacen("select id", "select id, payload::text", 1);
    let choose = client.prepare_typed(&choose, &[Type::INT4_ARRAY, Type::INT8]).await?;
    let delete = client.prepare("delete from graphile_worker._private_jobs where id = any ($1)").await?;
    let mut claimed: Vec<i64> = Vec::new();
    loop {
        let completing: [&(dyn ToSql + Sync); 1] = [&claimed];
        let claiming: [&(dyn ToSql + Sync); 2] = [&tasks, &BATCH];
        let (deleted, began, rows) = tokio::join!(
            async { if claimed.is_empty() { Ok(0) } else { client.execute(&delete, &completing).await } },
            client.batch_execute(if claimed.is_empty() { "begin" } else { "commit; begin" }),
            client.query(&choose, &claiming),
        );
        deleted?;
        began?;
        let rows = rows?;
        if stamps() {
            stamp(&rows).await?;
        }
        claimed = rows.iter().map(|row| row.get(0)).collect();
        if claimed.is_empty() {
            client.batch_execute("commit").await?;
            added.notified().await;
        }
    }
}

fn stamps() -> bool {
    std::env::var_os("BENCH_STAMPS").is_some()
}

async fn stamp(rows: &[Row]) -> Result<()> {
    for row in rows {
        let payload: serde_json::Value = serde_json::from_str(row.get(1))?;
        run("stamp", payload["n"].as_i64().context("a job's number")?).await.map_err(anyhow::Error::msg)?;
    }
    Ok(())
}

/// Is notified when jobs were added.
async fn listen(url: &str) -> Result<Arc<Notify>> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let added = Arc::new(Notify::new());
    let tell = Arc::clone(&added);
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(_) = message {
                tell.notify_one();
            }
        }
    });
    client.batch_execute("listen \"jobs:insert\"").await?;
    // As long as the process.
    std::mem::forget(client);
    Ok(added)
}
