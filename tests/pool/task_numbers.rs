//! The database's numbers for tasks may change under a living host.

use serde_json::json;

use super::*;

/// Upstream's clean-up removes the rows of tasks without jobs; its own workers then never find the next job of such a task.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_task_whose_number_was_removed_is_found_under_its_next_number() {
    let database = TestDatabase::installed().await;
    let mut bench = Bench::start(&database, Mode::Continuous, polling()).await;
    let done = |event| if let Event::JobDone { job, .. } = event { Some(job.id) } else { None };
    let first = database.add("nothing", json!({})).await;
    assert_eq!(bench.event(done).await, first);
    database.wait_until_no_jobs().await;
    database.execute("delete from graphile_worker._private_tasks").await;
    let second = database.add("nothing", json!({})).await;
    assert_eq!(bench.event(done).await, second);
    bench.stop().await;
}
