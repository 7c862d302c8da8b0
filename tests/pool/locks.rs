//! Locks that nobody lifted in hours are taken away; those of jobs that run long are renewed before that.

use crate::harness::wait::until_true;
use taskbay::queue::Unlocked;

use super::*;

async fn locked(database: &TestDatabase, task: &str, queue: &str, age: &str) -> i64 {
    let id = database.add_to_queue(task, serde_json::json!({}), queue).await;
    for table in ["_private_jobs where id", "_private_job_queues where id"] {
        let (table, column) = table.split_once(" where ").expect("a table");
        let of = if table == "_private_jobs" {
            format!("{column} = {id}")
        } else {
            format!("{column} = (select job_queue_id from graphile_worker._private_jobs where id = {id})")
        };
        let sql = format!(
            "update graphile_worker.{table} set locked_by = 'pool-gone', locked_at = now() - interval '{age}' where {of}"
        );
        database.execute(&sql).await;
    }
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_of_more_than_four_hours_are_released_and_younger_ones_stay() {
    let database = TestDatabase::installed().await;
    // No task of this host, so that nothing but the sweep touches them.
    let free = database.add("theirs", serde_json::json!({})).await;
    let young = locked(&database, "theirs", "a", "5 minutes").await;
    let old = locked(&database, "theirs", "b", "4 hours 1 minute").await;
    let last = locked(&database, "theirs", "c", "5 hours").await;
    database.execute(&format!("update graphile_worker._private_jobs set attempts = 25 where id = {last}")).await;
    database
        .execute(&format!(
            "update graphile_worker._private_jobs set run_at = now() + interval '1 day' where id = {free}"
        ))
        .await;
    let millisecond = Duration::from_millis(1);
    let settings = WorkerSettings { reset_locked: (millisecond, millisecond), ..polling() };
    let mut bench = Bench::start(&database, Mode::Continuous, settings).await;
    bench.event(|event| matches!(event, Event::ResetLockedStarted).then_some(())).await;
    let unlocked = bench
        .event(|event| match event {
            Event::ResetLockedSucceeded { unlocked, .. } => Some(unlocked),
            _ => None,
        })
        .await;
    assert_eq!(unlocked, Unlocked { jobs: 2, queues: 2 });
    bench.stop().await;

    let owner = async |id| database.job(id).await.locked_by;
    assert_eq!((owner(free).await, owner(old).await, owner(last).await), (None, None, None));
    assert_eq!(owner(young).await.as_deref(), Some("pool-gone"));
    assert_eq!(database.locked_queues().await, 1);
    // The attempt stays counted, so the last one was the last; upstream leaves such a job without a word.
    let last = database.job(last).await;
    assert_eq!(last.attempts, 25);
    assert!(last.last_error.is_some_and(|error| error.contains("pool-gone")));
    assert_eq!(database.job(old).await.last_error, None);
}

/// If such a lock looks old, then the clock of Postgres was set: its owner would have renewed it.
#[tokio::test(flavor = "multi_thread")]
async fn who_shows_that_it_lives_keeps_its_locks_however_old_they_look() {
    let database = TestDatabase::installed().await;
    let (living, silent) = ("taskbay-live-a", "taskbay-live-b");
    let life = database.database().show_life(living).await.unwrap().expect("nobody takes it for dead");
    let mut jobs = Vec::new();
    for (owner, queue) in [(living, "a"), (silent, "b"), ("worker-of-node", "c")] {
        let id = locked(&database, "theirs", queue, "5 hours").await;
        for (table, of) in
            [("_private_jobs", format!("id = {id}")), ("_private_job_queues", format!("queue_name = '{queue}'"))]
        {
            database.execute(&format!("update graphile_worker.{table} set locked_by = '{owner}' where {of}")).await;
        }
        jobs.push(id);
    }
    let session = database.database().session().await.unwrap();
    assert_eq!(session.reset_locked().await.unwrap(), Unlocked { jobs: 2, queues: 2 });
    let owners: Vec<_> = database.jobs().await.into_iter().map(|job| job.locked_by).collect();
    assert_eq!(owners, [Some(living.to_owned()), None, None]);
    drop(life);
    let last = Unlocked { jobs: 1, queues: 1 };
    until_true("its connection has ended", async || session.reset_locked().await.unwrap() == last).await;
    assert_eq!(database.job(jobs[0]).await.locked_by, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_job_is_run_without_a_poll() {
    let database = TestDatabase::installed().await;
    let id = locked(&database, "nothing", "q", "4 hours 1 minute").await;
    let settings = WorkerSettings {
        reset_locked: (Duration::from_millis(100), Duration::from_millis(100)),
        poll_interval: Duration::from_secs(3_600),
        ..WorkerSettings::default()
    };
    let mut bench = Bench::start(&database, Mode::Continuous, settings).await;
    let done = bench.event(|event| if let Event::JobDone { job, .. } = event { Some(job) } else { None }).await;
    assert_eq!((done.id, done.attempt), (id, 1));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_locks_of_a_job_that_runs_long_are_renewed_on_job_and_queue() {
    let database = TestDatabase::installed().await;
    let id = database.add_to_queue("sleep", serde_json::json!({"ms": 600_000}), "q").await;
    let other = locked(&database, "theirs", "r", "3 hours").await;
    let settings = WorkerSettings { refresh_locked: Duration::from_millis(200), ..polling() };
    let mut bench = Bench::start(&database, Mode::Continuous, settings).await;
    bench.event(|event| matches!(event, Event::JobStarted { .. }).then_some(())).await;
    let age = "set locked_at = locked_at - interval '3 hours 59 minutes' where locked_by like 'taskbay-%'";
    database.execute(&format!("update graphile_worker._private_jobs {age}")).await;
    database.execute(&format!("update graphile_worker._private_job_queues {age}")).await;
    let young = "select count(*) from (
        select locked_at from graphile_worker._private_jobs
        union all select locked_at from graphile_worker._private_job_queues
      ) as locks where locked_at > now() - interval '1 hour'";
    // An earlier renewal may still be on its way out; the next one has seen the old locks.
    while database.id_of(young, &[]).await < 2 {
        bench.event(|event| matches!(event, Event::LocksRenewed { jobs: 1.. }).then_some(())).await;
    }
    assert_eq!(database.id_of(young, &[]).await, 2, "those of others are left alone");
    assert_eq!(database.job(other).await.locked_by.as_deref(), Some("pool-gone"));
    assert!(database.job(id).await.locked_by.is_some());
    bench.stop.now.cancel();
    bench.stop().await;
    // It goes back by a claim whose time is not that of the row any more.
    let job = database.job(id).await;
    assert_eq!((job.attempts, job.locked_by, job.last_error), (0, None, None));
    assert_eq!(database.locked_queues().await, 1, "that of the other one");
}
