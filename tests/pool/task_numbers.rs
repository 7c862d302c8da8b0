//! Task ids may change under a running host.

use serde_json::json;
use taskbay::migrate;

use super::*;
use crate::harness::{
    jobs::JobRow,
    plugins::{install_plugin, tasks_folder},
    program::Taskbay,
};

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

/// As a test suite does between two tests, or somebody who installs the schema anew. Task ids, job ids and queue ids begin at 1 again.
#[derive(Debug, Clone, Copy)]
enum Reset {
    Truncate,
    Reinstall,
}

impl Reset {
    async fn carry_out(self, database: &TestDatabase) {
        match self {
            Self::Truncate => {
                let tables = "_private_jobs, graphile_worker._private_tasks, graphile_worker._private_job_queues";
                database.execute(&format!("truncate graphile_worker.{tables} restart identity cascade")).await;
            }
            Self::Reinstall => {
                database.execute("drop schema graphile_worker cascade").await;
                migrate::prepare(&database.database()).await.expect("install the schema again");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_not_run_by_the_task_that_had_its_task_id_before_a_reset() {
    for reset in [Reset::Truncate, Reset::Reinstall] {
        for lane in ["marked", "express"] {
            let (database, folder) = (TestDatabase::installed().await, tasks_folder());
            install_plugin(folder.path(), "misbehaving");
            let host = Taskbay::run(&database.url(), folder.path()).args(["-j", "4", "--claim", lane]).spawn();
            host.event("worker_ready", |_| true).await;
            // The host knows the ids of its tasks, and that `nothing` is short enough for the express lane.
            for _ in 0..3 {
                database.add_many("nothing", 50).await;
                database.wait_until_no_jobs().await;
            }
            reset.carry_out(&database).await;
            database.add_many("charge_card", 30).await;
            let in_queue = database.add_to_queue("charge_card", json!({}), "payments").await;
            database.add_to_queue("nothing", json!({}), "others").await;
            database.add_many("nothing", 50).await;
            database.wait_until_jobs(31).await;
            let left = database.jobs().await;
            let untouched = |job: &JobRow| job.task == "charge_card" && job.attempts == 0 && job.locked_by.is_none();
            assert!(left.iter().all(untouched), "{reset:?}, {lane}: {left:?}");
            assert!(left.iter().any(|job| job.id == in_queue), "{reset:?}, {lane}");
            host.stop().await;
        }
    }
}
