//! A fresh database for each run: a copy of one that was filled once, so that all contenders of a schema begin with the same
//! bytes and the same statistics.

use anyhow::{Context, Result};
use tokio_postgres::Client;

use crate::{bench::Bench, store::Store, workload::Workload};

/// A database that one run of one contender has for itself.
#[derive(Debug)]
pub struct Database {
    pub name: String,
    pub url: String,
}

impl Bench {
    /// With the schema, and the jobs if some are asked for.
    pub async fn database(&self, store: Store, workload: Option<Workload>) -> Result<Database> {
        let template = self.template(store, workload).await?;
        let database = self.new_database();
        let admin = self.server.connect("postgres").await?;
        let copy = format!("create database {} template {template}", database.name);
        admin.batch_execute(&copy).await.with_context(|| format!("copy the database {template}"))?;
        // What was written before a run must not be written to the disk during it.
        admin.batch_execute("checkpoint").await.context("write a checkpoint")?;
        Ok(database)
    }

    /// Removes one, whoever is still connected to it.
    pub async fn remove(&self, database: &Database) -> Result<()> {
        let admin = self.server.connect("postgres").await?;
        let removal = format!("drop database {} with (force)", database.name);
        admin.batch_execute(&removal).await.with_context(|| format!("drop the database {}", database.name))
    }

    /// Removes those that copies were made of. The next row has other jobs.
    pub async fn remove_templates(&self) -> Result<()> {
        let templates: Vec<String> = self.templates.lock().await.drain().map(|(_, name)| name).collect();
        for name in templates {
            self.remove(&Database { url: self.server.url(&name), name }).await?;
        }
        Ok(())
    }

    fn new_database(&self) -> Database {
        let number = self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("bench_{number}");
        Database { url: self.server.url(&name), name }
    }

    async fn template(&self, store: Store, workload: Option<Workload>) -> Result<String> {
        let mut templates = self.templates.lock().await;
        if let Some(name) = templates.get(&(store, workload)) {
            return Ok(name.clone());
        }
        let database = self.new_database();
        let admin = self.server.connect("postgres").await?;
        admin.batch_execute(&format!("create database {}", database.name)).await.context("create a database")?;
        templates.insert((store, workload), database.name.clone());
        store.prepare(self, &database.url).await?;
        if let Some(workload) = workload {
            let client = self.server.connect(&database.name).await?;
            store.seed(self, &database.url, &client, &workload).await?;
            // As autovacuum would have done by itself in a minute; without, each contender meets a planner that knows nothing.
            client.batch_execute("analyze").await.context("analyze")?;
            disconnected(&admin, &database.name, client).await?;
        }
        Ok(database.name)
    }
}

/// Waits until nobody is connected any more: neither can a copy be made before, nor are all statistics counted.
pub async fn all_disconnected(admin: &Client, name: &str) -> Result<()> {
    let others = "select count(*) from pg_stat_activity where datname = $1 and backend_type = 'client backend'";
    while admin.query_one(others, &[&name]).await.context("count the connections")?.get::<_, i64>(0) > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn disconnected(admin: &Client, name: &str, client: Client) -> Result<()> {
    drop(client);
    all_disconnected(admin, name).await
}
