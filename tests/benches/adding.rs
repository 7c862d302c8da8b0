//! What adding many jobs costs beside the bare function of the schema: `cargo bench --bench adding`.
//!
//! The bare function is called by one statement that makes its own jobs and gives nothing back but their number, so neither
//! the jobs nor their rows travel. Of several rounds the best counts: on a busy machine the others measure the neighbours.
#![allow(unreachable_pub, reason = "nobody uses a benchmark")]

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "made for the tests, of which this needs a part")]
mod harness;

use std::time::{Duration, Instant};

use taskbay::queue::NewJob;

use harness::postgres::TestDatabase;

const JOBS: u32 = 200_000;
const ROUNDS: usize = 7;

#[tokio::main]
async fn main() {
    let test = TestDatabase::new().await;
    let database = test.database();
    taskbay::migrate::prepare(&database).await.expect("install the schema");
    let client = test.client().await;
    let empty = async || client.batch_execute("truncate graphile_worker._private_jobs").await.expect("empty the table");
    let alike: Vec<NewJob> = (0..JOBS)
        .map(|id| NewJob::with_payload("job3", &serde_json::json!({ "id": id })).expect("a payload"))
        .collect();
    let varied: Vec<NewJob> = (0..JOBS)
        .zip(&alike)
        .map(|(id, job)| NewJob { identifier: format!("job{}", id % 4), ..job.clone() }.priority((id % 3) as i16))
        .collect();
    let keyed: Vec<NewJob> = (0..JOBS).zip(&alike).map(|(id, job)| job.clone().key(id.to_string())).collect();
    let mut rows: Vec<(&str, Vec<Duration>)> = Vec::new();
    for round in 0..ROUNDS {
        let mut place = 0;
        let mut note = |name, took| {
            if round == 0 {
                rows.push((name, Vec::new()));
            }
            rows[place].1.push(took);
            place += 1;
        };
        for (name, sql, jobs) in [
            ("alike", bare("'job3'", "null"), &alike),
            ("of four tasks", bare("'job' || id % 4", "null"), &varied),
            ("with keys", bare("'job3'", "id"), &keyed),
        ] {
            empty().await;
            let began = Instant::now();
            client.query_one(&sql, &[]).await.expect("call the function");
            note(name, began.elapsed());
            empty().await;
            let began = Instant::now();
            let added = database.add_jobs(jobs).await.expect("add the jobs");
            note("  add_jobs", began.elapsed());
            assert_eq!(added.len(), jobs.len());
            empty().await;
            let began = Instant::now();
            let count = database.add_jobs_unread(jobs).await.expect("add the jobs");
            note("  add_jobs_unread", began.elapsed());
            assert_eq!(count, u64::from(JOBS));
        }
    }
    println!("\n{:<24}{:>10}{:>12}{:>14}", format!("{JOBS} jobs in one call"), "best", "jobs/s", "of the bare");
    let mut bare = 0.0;
    for (name, took) in rows {
        let took = took.into_iter().min().unwrap_or_default().as_secs_f64();
        if !name.starts_with(' ') {
            bare = took;
        }
        let rate = f64::from(JOBS) / took;
        println!("{name:<24}{:>10}{rate:>12.0}{:>13.0}%", format!("{took:.2}s"), 100.0 * bare / took);
    }
}

/// Calls the function with as many jobs, whose tasks and keys are these expressions of their number.
fn bare(task: &str, key: &str) -> String {
    format!(
        "select count(*) from graphile_worker.add_jobs(array(select ({task}, json_build_object('id', id), null, null, null,
         {key}, null, null)::graphile_worker.job_spec from generate_series(1, {JOBS}) as id))"
    )
}
