//! Taskbay's own library as a program that adds jobs uses it. Its worker is the program `taskbay`, which is not called from
//! here.

use anyhow::Result;
use taskbay::queue::{Database, DatabaseSettings, NewJob};

use crate::{BATCH, timed};

pub async fn add(url: &str, task: &str, count: i64) -> Result<()> {
    let database = Database::new(DatabaseSettings::new(url.parse()?, "graphile_worker"))?;
    let session = database.session().await?;
    let job = |n| NewJob::with_payload(task, &serde_json::json!({ "n": n }));
    timed(async {
        for first in (0..count).step_by(BATCH) {
            let jobs = (first..count.min(first + BATCH as i64)).map(job).collect::<Result<Vec<NewJob>, _>>()?;
            session.add_jobs(&jobs).await?;
        }
        Ok(())
    })
    .await
}
