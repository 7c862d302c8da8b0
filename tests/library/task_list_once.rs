//! What is run once: graphile-worker's `main.runTaskListOnce` tests.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use taskbay::TaskError;
use tokio::task::JoinSet;

use super::*;

fn failing(message: &'static str) -> TaskList {
    TaskList::new().task("job3", move |_: Value, _| async move { Err(TaskError::new(message)) })
}

async fn queues(database: &TestDatabase) -> i64 {
    database.id_of("select count(*) from graphile_worker._private_job_queues where locked_by is not null", &[]).await
}

/// Works in the background.
fn in_background(database: &TestDatabase, tasks: &TaskList) -> tokio::task::JoinHandle<()> {
    let run = taskbay::run_task_list_once(options(database), tasks.clone());
    tokio::spawn(async move { run.await.expect("the jobs are worked") })
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_jobs() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::open();
    database.add_to_queue("job3", a("1"), "serial").await;
    let before = database.only_job().await;
    assert_eq!((before.attempts, before.locked_by), (0, None));
    once(&database, &gate.task("job3")).await;
    let started = gate.all_started();
    assert_eq!(started.len(), 1);
    assert_eq!(serde_json::from_str::<Value>(&started[0].payload).unwrap(), a("1"));
    assert!(database.jobs().await.is_empty());
    assert_eq!(queues(&database).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_errors_for_retry() {
    let database = TestDatabase::installed().await;
    let id = database.add_to_queue("job3", a("1"), "serial").await;
    once(&database, &failing("TEST_ERROR")).await;
    let job = database.only_job().await;
    assert_eq!((job.attempts, job.max_attempts, job.last_error.as_deref()), (1, 25, Some("TEST_ERROR")));
    let wait = database.seconds_until_run(id).await;
    assert!(wait > 0.0 && wait <= 2.719, "{wait}");
    assert_eq!(queues(&database).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_job() {
    let database = TestDatabase::installed().await;
    let id = database.add("job3", a("1")).await;
    once(&database, &failing("TEST_ERROR")).await;
    database.execute("update graphile_worker._private_jobs set run_at = now() + interval '1 hour'").await;
    once(&database, &failing("TEST_ERROR 2")).await;
    assert_eq!(database.job(id).await.attempts, 1, "it is not due");
    set_due(&database).await;
    once(&database, &failing("TEST_ERROR 2")).await;
    let job = database.job(id).await;
    assert_eq!((job.attempts, job.last_error.as_deref()), (2, Some("TEST_ERROR 2")));
    let wait = database.seconds_until_run(id).await;
    assert!(wait > 0.0 && wait <= 7.390, "{wait}");
}

#[tokio::test(flavor = "multi_thread")]
async fn supports_future_scheduled_jobs() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::open();
    database.add_in_an_hour("job3", a("1")).await;
    once(&database, &gate.task("job3")).await;
    assert!(gate.all_started().is_empty());
    set_due(&database).await;
    once(&database, &gate.task("job3")).await;
    assert_eq!(gate.all_started().len(), 1);
    assert!(database.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn allows_update_of_pending_jobs() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::open();
    let adding = database.database();
    let later = std::time::SystemTime::now() + seconds(3600);
    let first = adding.add_job(&payload(a("wrong")).key("abc").run_at(later)).await.unwrap();
    once(&database, &gate.task("job3")).await;
    assert!(gate.all_started().is_empty());
    let now = std::time::SystemTime::now() - seconds(1);
    let second = adding.add_job(&payload(a("right")).key("abc").run_at(now)).await.unwrap();
    assert_eq!((first.id, second.revision), (second.id, 1));
    once(&database, &gate.task("job3")).await;
    assert_eq!(gate.all_started()[0].payload, r#"{"a":"right"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_a_new_job_if_existing_is_completed() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::open();
    for value in ["first", "second"] {
        database.database().add_job(&payload(a(value)).key("abc")).await.unwrap();
        once(&database, &gate.task("job3")).await;
        assert_eq!(gate.all_started()[0].payload, a(value).to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_a_new_job_if_existing_is_being_processed() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::closed();
    let adding = database.database();
    adding.add_job(&payload(a("first")).key("abc")).await.unwrap();
    let running = in_background(&database, &gate.task("job3"));
    assert_eq!(gate.started().await.payload, r#"{"a":"first"}"#);
    adding.add_job(&payload(a("second")).key("abc")).await.unwrap();
    assert_eq!(database.jobs().await.len(), 2);
    gate.let_go(2);
    within(running).await.unwrap();
    once(&database, &gate.task("job3")).await;
    assert_eq!(gate.all_started()[0].payload, r#"{"a":"second"}"#);
    assert!(database.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_a_new_job_if_the_existing_is_pending_retry() {
    let database = TestDatabase::installed().await;
    let adding = database.database();
    let first = adding.add_job(&payload(a("first")).key("abc")).await.unwrap();
    once(&database, &failing("TEST_ERROR")).await;
    assert_eq!(database.job(first.id).await.attempts, 1);
    let second = adding.add_job(&payload(a("second")).key("abc")).await.unwrap();
    assert_eq!((second.id, second.attempts, second.last_error.as_deref()), (first.id, 0, None));
    let mut gate = Gate::open();
    once(&database, &gate.task("job3")).await;
    assert_eq!(gate.all_started()[0].payload, r#"{"a":"second"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn job_details_are_reset_if_not_specified_in_update() {
    let database = TestDatabase::installed().await;
    let adding = database.database();
    let later = std::time::SystemTime::now() + seconds(3600);
    let full = payload(a("1")).key("abc").queue("queue1").run_at(later).max_attempts(10).priority(3);
    let first = adding.add_job(&full).await.unwrap();
    assert_eq!((first.queue_name.as_deref(), first.max_attempts), (Some("queue1"), 10));
    let second = adding.add_job(&NewJob::new("job3").key("abc")).await.unwrap();
    assert_eq!((second.id, second.payload.as_str()), (first.id, "{}"));
    assert_eq!((&second.queue_name, second.max_attempts, second.priority), (&None, 25, 0));
    assert!(second.run_at < later - seconds(1800));
    let third = adding.add_job(&NewJob { identifier: "job1".to_owned(), ..full }).await.unwrap();
    assert_eq!((third.id, third.task.as_str(), third.queue_name.as_deref()), (first.id, "job1", Some("queue1")));
    assert_eq!((third.max_attempts, third.priority), (10, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_jobs_can_be_removed() {
    let database = TestDatabase::installed().await;
    database.database().add_job(&payload(a("1")).key("abc")).await.unwrap();
    database.execute("select graphile_worker.remove_job('abc')").await;
    assert!(database.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_in_progress_cannot_be_removed() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::closed();
    database.database().add_job(&payload(a("1")).key("abc")).await.unwrap();
    let running = in_background(&database, &gate.task("job3"));
    gate.started().await;
    database.execute("select graphile_worker.remove_job('abc')").await;
    assert_eq!(database.jobs().await.len(), 1);
    gate.let_go(1);
    within(running).await.unwrap();
    assert!(database.jobs().await.is_empty());
    assert!(gate.all_started().is_empty(), "it ran once");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_jobs_asynchronously() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::closed();
    database.add_to_queue("job3", a("1"), "serial").await;
    let running = in_background(&database, &gate.task("job3"));
    let started = gate.started().await;
    let job = database.only_job().await;
    assert_eq!((job.attempts, job.locked_by.as_deref()), (1, Some(started.locked_by.as_str())));
    let held =
        "select count(*) from graphile_worker._private_job_queues where locked_by = $1 and locked_at is not null";
    assert_eq!(database.id_of(held, &[&started.locked_by]).await, 1);
    gate.let_go(1);
    within(running).await.unwrap();
    assert_eq!(queues(&database).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_jobs_in_parallel() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::closed();
    for queue in 0..5 {
        database.add_to_queue("job3", json!(queue), &format!("queue_{queue}")).await;
    }
    let tasks = gate.task("job3");
    let mut pools = JoinSet::new();
    for _ in 0..5 {
        // Each takes one job, so that all five are needed.
        let run = taskbay::run_task_list_once(options(&database).concurrency(1), tasks.clone());
        pools.spawn(async move { run.await.unwrap() });
    }
    let mut owners = Vec::new();
    for _ in 0..5 {
        owners.push(gate.started().await.locked_by);
    }
    owners.sort();
    owners.dedup();
    assert_eq!(owners.len(), 5);
    gate.let_go(5);
    within(pools.join_all()).await;
    assert!(database.jobs().await.is_empty());
}

/// Jobs that say whether they ran alone.
fn counting() -> (TaskList, Arc<AtomicUsize>, Arc<Mutex<Vec<Value>>>) {
    let (most, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (now, at_most, order) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&most), Arc::clone(&seen));
    let tasks = TaskList::new().task("job3", move |payload: Value, _| {
        let (now, most, seen) = (Arc::clone(&now), Arc::clone(&at_most), Arc::clone(&order));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            seen.lock().unwrap().push(payload);
            tokio::time::sleep(Duration::from_millis(5)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    (tasks, most, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn single_worker_runs_jobs_in_series_and_purges_all_before_exit() {
    let database = TestDatabase::installed().await;
    let (tasks, most, seen) = counting();
    for number in 0..5 {
        database.add("job3", json!(number)).await;
    }
    within(taskbay::run_task_list_once(options(&database).concurrency(1), tasks)).await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert_eq!(*seen.lock().unwrap(), [json!(0), json!(1), json!(2), json!(3), json!(4)]);
    assert!(database.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_added_to_the_same_queue_will_be_run_serially_even_if_multiple_workers() {
    let database = TestDatabase::installed().await;
    let (tasks, most, seen) = counting();
    for number in 0..5 {
        database.add_to_queue("job3", json!(number), "serial").await;
    }
    let mut pools = JoinSet::new();
    for _ in 0..3 {
        let run = taskbay::run_task_list_once(options(&database), tasks.clone());
        pools.spawn(async move { run.await.unwrap() });
    }
    within(pools.join_all()).await;
    // A pool that found the queue busy may have left before its last job.
    once(&database, &tasks).await;
    assert_eq!((most.load(Ordering::SeqCst), seen.lock().unwrap().len()), (1, 5));
    assert!(database.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn takes_over_what_was_locked_more_than_four_hours_ago() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::open();
    let [long_ago, lately] = [database.add("job3", a("1")).await, database.add("job3", a("2")).await];
    for (id, since) in [(long_ago, "4 hours 1 minute"), (lately, "5 minutes")] {
        let lock = "update graphile_worker._private_jobs set locked_by = 'another', locked_at = now() - interval";
        database.execute(&format!("{lock} '{since}' where id = {id}")).await;
    }
    once(&database, &gate.task("job3")).await;
    assert_eq!(gate.all_started().iter().map(|job| job.id).collect::<Vec<_>>(), [long_ago]);
    assert_eq!(database.only_job().await.id, lately);
}
