//! A host inside a program, from its start to its end.

use taskbay::library::AlreadyStopped;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_is_stopped_once() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::closed();
    let runner = within(taskbay::run(options(&database).tasks(gate.task("job3")))).await.unwrap();
    runner.add_job(&payload(a("1"))).await.unwrap();
    gate.started().await;
    let (stopped, ()) = tokio::join!(within(runner.stop()), async { gate.let_go(1) });
    assert_eq!(stopped, Ok(()));
    assert!(database.jobs().await.is_empty(), "a stop waits for what runs");
    assert_eq!(runner.stop().await, Err(AlreadyStopped));
    within(runner.wait()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runner_does_not_wait_for_its_jobs() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::closed();
    let runner = within(taskbay::run(options(&database).tasks(gate.task("job3")))).await.unwrap();
    let id = runner.add_job(&payload(a("1"))).await.unwrap().id;
    gate.started().await;
    within(runner.kill()).await;
    let job = database.job(id).await;
    assert_eq!((job.locked_by, job.last_error, job.attempts), (None, None, 0));
    assert_eq!(runner.stop().await, Err(AlreadyStopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_runner_stops_by_itself_and_its_jobs_finish() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::closed();
    let runner = within(taskbay::run(options(&database).tasks(gate.task("job3")))).await.unwrap();
    let mut heard = Heard::from(runner.events());
    runner.add_job(&payload(a("1"))).await.unwrap();
    gate.started().await;
    drop(runner);
    heard.named("pool:gracefulShutdown").await;
    gate.let_go(1);
    heard.named("stop").await;
    assert!(database.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_ends_of_itself_says_why() {
    let database = TestDatabase::installed().await;
    let gate = Gate::open();
    let runner = within(taskbay::run(options(&database).tasks(gate.task("job3")))).await.unwrap();
    let mut heard = Heard::from(runner.events());
    heard.named("pool:listen:success").await;
    database
        .execute(
            "insert into graphile_worker.migrations (id, breaking) values (999, true);
             select pg_notify('worker:migrate', '{\"migrationNumber\": 999, \"breaking\": true}')",
        )
        .await;
    let error = within(runner.wait()).await.unwrap_err().to_string();
    assert!(error.contains("999"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_hosts_share_a_pool_of_connections() {
    let database = TestDatabase::installed().await;
    let shared = database.database();
    let mut gate = Gate::open();
    let start = || taskbay::run(Options::new().database(shared.clone()).tasks(gate.task("job3")));
    let (first, second) = (within(start()).await.unwrap(), within(start()).await.unwrap());
    assert_ne!(first.pool().id(), second.pool().id());
    first.add_jobs(&[payload(a("1")), payload(a("2"))]).await.unwrap();
    gate.started().await;
    gate.started().await;
    within(first.stop()).await.unwrap();
    within(second.stop()).await.unwrap();
    assert!(database.jobs().await.is_empty());
}
