//! Sees when the rows are gone: the clock stops there, and not when handlers have been called.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio_postgres::{Client, Statement};

use crate::{fleet::Fleet, store::Store, workload::Workload};

const WHAT: &str = "look for jobs that are left";

/// Looks every millisecond at those jobs that are probably the last, by their ids, which costs Postgres next to nothing; when
/// those are gone, at all. What a statement sees is what was there when it began, so that is the time that counts, however
/// long the statement takes.
#[derive(Debug)]
pub struct Finish {
    client: Client,
    watched: Vec<i64>,
    left: Statement,
    left_of: Option<Statement>,
    count: Statement,
    statements: u32,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    pub took: Duration,
    /// How many were left, if it would have taken longer than allowed.
    pub left: u32,
    /// How many transactions it took to see that.
    pub statements: u32,
}

impl Finish {
    /// Before the jobs' table is locked.
    pub async fn prepare(client: Client, store: Store, workload: &Workload) -> Result<Self> {
        let left = client.prepare(&store.left(workload)).await.context(WHAT)?;
        let count = client.prepare(&store.count_left(workload)).await.context(WHAT)?;
        let left_of = match store.left_of() {
            Some(sql) => Some(client.prepare(&sql).await.context(WHAT)?),
            None => None,
        };
        let watched = match store.last() {
            Some(sql) => client.query(&sql, &[]).await.context(WHAT)?.iter().map(|row| row.get(0)).collect(),
            None => Vec::new(),
        };
        Ok(Self { client, watched, left, left_of, count, statements: 5 })
    }

    pub async fn wait(mut self, fleet: &mut Fleet, began: Instant, limit: Duration) -> Result<Finished> {
        loop {
            let asked = Instant::now();
            self.statements += 1;
            self.watched = match &self.left_of {
                Some(left_of) if !self.watched.is_empty() => self.ids(left_of, Some(&self.watched)).await?,
                _ => {
                    let left = self.ids(&self.left, None).await?;
                    if left.is_empty() {
                        return Ok(Finished { took: asked - began, left: 0, statements: self.statements });
                    }
                    left
                }
            };
            if began.elapsed() > limit {
                let took = began.elapsed();
                let left: i64 = self.client.query_one(&self.count, &[]).await.context(WHAT)?.get(0);
                return Ok(Finished { took, left: u32::try_from(left)?, statements: self.statements + 1 });
            }
            fleet.check()?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn ids(&self, statement: &Statement, of: Option<&Vec<i64>>) -> Result<Vec<i64>> {
        let rows = match of {
            Some(ids) => self.client.query(statement, &[ids]).await,
            None => self.client.query(statement, &[]).await,
        };
        Ok(rows.context(WHAT)?.iter().map(|row| row.get(0)).collect())
    }
}
