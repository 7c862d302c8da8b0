//! What is run until it is told to stop: graphile-worker's `main.runTaskList` tests.

use taskbay::TaskError;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn main_will_execute_jobs_as_they_come_up_and_exits_cleanly() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::closed();
    let options = options(&database).concurrency(3).poll_interval(seconds(3600));
    let pool = within(taskbay::run_task_list(options, gate.task("job3"))).await.unwrap();
    for number in 0..5 {
        database.add_to_queue("job3", json!(number), "serial").await;
    }
    for number in 0..5 {
        let job = gate.started().await;
        assert_eq!((job.payload, job.locked_by.as_str()), (number.to_string(), pool.id()));
        assert!(gate.all_started().is_empty(), "one after the other");
        gate.let_go(1);
    }
    pool.graceful_shutdown();
    within(pool.wait()).await.unwrap();
    within(pool.wait()).await.unwrap();
    assert!(database.jobs().await.is_empty());
    assert_eq!(database.locked_queues().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn graceful_shutdown_asks_jobs_to_end_and_they_are_tried_again() {
    let database = TestDatabase::installed().await;
    let (started, mut begun) = mpsc::unbounded_channel();
    let tasks = TaskList::new().task("job3", move |_: Value, job: JobContext| {
        let started = started.clone();
        async move {
            started.send(())?;
            job.cancelled().await;
            Err(TaskError::new("aborted"))
        }
    });
    let options = options(&database).abort_timeout(Duration::from_millis(20));
    let pool = within(taskbay::run_task_list(options, tasks)).await.unwrap();
    let id = pool.add_job(&payload(a("1"))).await.unwrap().id;
    within(begun.recv()).await.unwrap();
    pool.graceful_shutdown();
    within(pool.wait()).await.unwrap();
    let job = database.job(id).await;
    assert_eq!((job.last_error.as_deref(), job.attempts, job.locked_by), (Some("aborted"), 1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn forceful_shutdown_ends_jobs_that_do_not_listen() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::closed();
    let pool = within(taskbay::run_task_list(options(&database), gate.task("job3"))).await.unwrap();
    let id = pool.add_job(&payload(a("1"))).await.unwrap().id;
    gate.started().await;
    pool.forceful_shutdown();
    within(pool.wait()).await.unwrap();
    let job = database.job(id).await;
    assert_eq!((job.last_error.as_deref(), job.attempts, job.locked_by), (None, 0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nudge_finds_what_no_notification_told_of() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::open();
    let events = Events::default();
    let mut heard = Heard::from(&events);
    let options = options(&database).listen(false).poll_interval(seconds(3600)).events(events);
    let pool = within(taskbay::run_task_list(options, gate.task("job3"))).await.unwrap();
    heard.named("worker:getJob:empty").await;
    database.add("job3", a("1")).await;
    pool.nudge();
    gate.started().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_handle_stops_the_pool() {
    let database = TestDatabase::installed().await;
    let gate = Gate::open();
    let events = Events::default();
    let mut heard = Heard::from(&events);
    let pool = taskbay::run_task_list(options(&database).events(events), gate.task("job3"));
    drop(within(pool).await.unwrap());
    heard.named("stop").await;
}
