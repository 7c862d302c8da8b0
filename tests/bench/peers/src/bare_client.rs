//! A client that claims and completes jobs of the task `noop` and does nothing else: what Postgres itself can do.

use std::time::Duration;

use anyhow::Result;
use tokio_postgres::{
    Client, NoTls,
    types::{ToSql, Type},
};

use crate::ready_until_stopped;

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
    let working = tokio::spawn(async move {
        match lane {
            Lane::Marked => marked(client).await,
            Lane::Express => express(client).await,
        }
    });
    tokio::select! {
        stopped = ready_until_stopped() => stopped?,
        ended = working => ended??,
    }
    Ok(())
}

async fn tasks(client: &Client) -> Result<Vec<i32>> {
    let rows = client.query("select id from graphile_worker._private_tasks where identifier = 'noop'", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
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
async fn express(client: Client) -> Result<()> {
    let tasks = tasks(&client).await?;
    let choose = CHOOSE.replacen("select id", "select id, payload::text", 1);
    let choose = client.prepare_typed(&choose, &[Type::INT4_ARRAY, Type::INT8]).await?;
    let delete = client.prepare("delete from graphile_worker._private_jobs where id = any ($1)").await?;
    client.batch_execute("begin").await?;
    let mut claimed: Vec<i64> = client.query(&choose, &[&tasks, &BATCH]).await?.iter().map(|row| row.get(0)).collect();
    loop {
        let (completing, claiming): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 2]) =
            ([&claimed], [&tasks, &BATCH]);
        let (deleted, committed, rows) = tokio::join!(
            client.execute(&delete, &completing),
            client.batch_execute("commit; begin"),
            client.query(&choose, &claiming),
        );
        deleted?;
        committed?;
        claimed = rows?.iter().map(|row| row.get(0)).collect();
        if claimed.is_empty() {
            client.batch_execute("commit").await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
            client.batch_execute("begin").await?;
        }
    }
}
