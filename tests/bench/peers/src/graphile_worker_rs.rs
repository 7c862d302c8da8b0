//! The crate `graphile_worker`, at the settings of its own throughput benchmark.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext, WorkerOptions,
};
use serde::{Deserialize, Serialize};

use crate::{BATCH, concurrency, ready_until_stopped, tasks, timed};

macro_rules! task {
    ($name:ident, $identifier:literal) => {
        #[derive(Deserialize, Serialize)]
        struct $name {
            n: i64,
        }

        impl TaskHandler for $name {
            const IDENTIFIER: &'static str = $identifier;

            async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
                tasks::run($identifier, self.n).await
            }
        }
    };
}

task!(Noop, "noop");
task!(Sleep, "sleep");
task!(Fail, "fail");
task!(Stamp, "stamp");

fn options(url: &str) -> Result<WorkerOptions> {
    Ok(WorkerOptions::default()
        .database_url(url)
        .concurrency(concurrency(500)?)
        .poll_interval(Duration::from_millis(5))
        .complete_job_batch_delay(Duration::from_millis(5))
        .fail_job_batch_delay(Duration::from_millis(5))
        .local_queue(LocalQueueConfig::default().with_size(5000))
        .define_job::<Noop>()
        .define_job::<Sleep>()
        .define_job::<Fail>()
        .define_job::<Stamp>())
}

pub async fn prepare(url: &str) -> Result<()> {
    options(url)?.init().await?;
    Ok(())
}

pub async fn add(url: &str, task: &str, count: i64) -> Result<()> {
    let utils = options(url)?.init().await?.create_utils();
    let job = |n| RawJobSpec {
        identifier: task.to_owned(),
        payload: serde_json::json!({ "n": n }),
        spec: JobSpec::default(),
    };
    timed(async {
        for first in (0..count).step_by(BATCH) {
            let jobs: Vec<RawJobSpec> = (first..count.min(first + BATCH as i64)).map(job).collect();
            utils.add_raw_jobs(&jobs).await?;
        }
        Ok(())
    })
    .await
}

pub async fn work(url: &str) -> Result<()> {
    let worker = Arc::new(options(url)?.init().await?);
    let running = Arc::clone(&worker);
    let running = tokio::spawn(async move { running.run().await });
    ready_until_stopped().await?;
    worker.request_shutdown();
    running.await??;
    Ok(())
}
