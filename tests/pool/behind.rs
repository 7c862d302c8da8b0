//! Jobs that turn up where claims have passed, and that nobody is told of.

use std::time::Duration;

use serde_json::json;
use taskbay::{
    config::{Claim, WorkerSettings},
    events::Event,
    queue::Notification,
    work::Mode,
};

use super::Bench;
use crate::harness::postgres::TestDatabase;

/// Jobs that nobody here works stand in front, so that looking behind is not cheap.
async fn obstacle(database: &TestDatabase) {
    database.execute("insert into graphile_worker._private_tasks (identifier) values ('theirs')").await;
    let jobs = "insert into graphile_worker._private_jobs (task_id, run_at)
                select max(id), now() - interval '1 hour' + i * interval '1 millisecond'
                from graphile_worker._private_tasks, generate_series(1, 50000) as i group by i";
    database.execute(jobs).await;
}

const OVERDUE: &str = "insert into graphile_worker._private_jobs (task_id, run_at)
                       select id, now() - interval '2 hours' from graphile_worker._private_tasks
                       where identifier = 'nothing'";

#[tokio::test(flavor = "multi_thread")]
async fn they_are_found_without_a_poll() {
    let database = TestDatabase::installed().await;
    obstacle(&database).await;
    let settings = WorkerSettings { poll_interval: Duration::from_secs(3_600), ..WorkerSettings::default() };
    let mut bench = Bench::start(&database, Mode::Continuous, settings).await;
    let done = |event| matches!(event, Event::JobDone { .. }).then_some(());
    for _ in 0..3 {
        database.add("nothing", json!({})).await;
        bench.pool.hear(Notification::JobsAdded(1));
        bench.event(done).await;
        database.execute(OVERDUE).await;
        bench.pool.hear(Notification::JobsAdded(1));
        bench.event(done).await;
    }
    bench.stop().await;
}

/// Each of the first jobs leaves another one that is overdue.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_works_once_leaves_none_of_them() {
    let database = TestDatabase::installed().await;
    obstacle(&database).await;
    for claim in [Claim::Express, Claim::Marked] {
        let ids = [database.add("nothing", json!({})).await, database.add("nothing", json!({})).await];
        let leave = format!(
            "create or replace function leave() returns trigger language plpgsql as $$
            begin {OVERDUE} and old.id in ({}, {}); return null; end $$",
            ids[0], ids[1]
        );
        database.execute(&leave).await;
        let trigger = "create or replace trigger leave after delete on graphile_worker._private_jobs
                       for each row execute function leave()";
        database.execute(trigger).await;
        Bench::once(&database, WorkerSettings { claim, ..WorkerSettings::default() }).await;
        let left = "select count(*) from graphile_worker.jobs where task_identifier = 'nothing'";
        assert_eq!(database.id_of(left, &[]).await, 0);
    }
}
