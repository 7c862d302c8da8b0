//! What administrators do with jobs through the library: graphile-worker's own tests of its `WorkerUtils`, and beyond.

use std::time::{Duration, SystemTime};

use taskbay::{
    queue::{CleanedUp, CleanupTask, JobState, NewJob, Reschedule, StoredJob},
    worker_utils::WorkerUtils,
};

use crate::harness::postgres::TestDatabase;

/// Jobs in every state that matters to an administrator.
struct Bench {
    database: TestDatabase,
    utils: WorkerUtils,
    failed: i64,
    regular: [i64; 2],
    locked: i64,
    untouched: i64,
}

impl Bench {
    async fn new() -> Self {
        let database = TestDatabase::installed().await;
        let utils = WorkerUtils::new(database.database());
        let mut ids = Vec::new();
        for name in ["failed", "regular", "regular", "locked", "untouched"] {
            ids.push(utils.add_job(&NewJob::new(name)).await.expect("add a job").id);
        }
        let bench =
            Self { failed: ids[0], regular: [ids[1], ids[2]], locked: ids[3], untouched: ids[4], database, utils };
        bench
            .database
            .execute(&format!(
                "update graphile_worker._private_jobs set attempts = max_attempts, last_error = 'Failed forever'
                   where id = {};
                 update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'pool-1'
                   where id = {}",
                bench.failed, bench.locked
            ))
            .await;
        bench
    }

    /// All that a command is given: everything but the untouched job.
    fn given(&self) -> [i64; 4] {
        [self.failed, self.regular[0], self.regular[1], self.locked]
    }

    /// What a command may change of it.
    fn changeable(&self) -> Vec<i64> {
        vec![self.failed, self.regular[0], self.regular[1]]
    }

    async fn others_are_as_they_were(&self) {
        let locked = self.database.job(self.locked).await;
        assert_eq!((locked.locked_by.as_deref(), locked.attempts, locked.last_error), (Some("pool-1"), 1, None));
        let untouched = self.database.job(self.untouched).await;
        assert_eq!((untouched.attempts, untouched.max_attempts, untouched.last_error), (0, 25, None));
    }
}

fn ids(jobs: &[StoredJob]) -> Vec<i64> {
    jobs.iter().map(|job| job.id).collect()
}

#[tokio::test]
async fn completes_the_jobs_and_leaves_others_unaffected() {
    let bench = Bench::new().await;
    let completed = bench.utils.complete_jobs(&bench.given()).await.unwrap();
    assert_eq!(ids(&completed), bench.changeable());
    assert_eq!(completed[0].task_identifier, "failed");
    let left: Vec<i64> = bench.database.jobs().await.iter().map(|job| job.id).collect();
    assert_eq!(left, [bench.locked, bench.untouched]);
    bench.others_are_as_they_were().await;
    assert!(bench.utils.complete_jobs(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn fails_the_jobs_for_good_and_leaves_others_unaffected() {
    let bench = Bench::new().await;
    let failed = bench.utils.permanently_fail_jobs(&bench.given(), Some("TESTING!")).await.unwrap();
    assert_eq!(ids(&failed), bench.changeable());
    for job in &failed {
        assert_eq!((job.last_error.as_deref(), job.attempts), (Some("TESTING!"), job.max_attempts));
        assert_eq!(job.state, JobState::Failed);
        assert_eq!(bench.database.job(job.id).await.last_error.as_deref(), Some("TESTING!"));
    }
    bench.others_are_as_they_were().await;
    let again = bench.utils.permanently_fail_jobs(&[bench.failed], None).await.unwrap();
    assert_eq!(again[0].last_error.as_deref(), Some("Manually marked as failed"));
}

#[tokio::test]
async fn reschedules_the_jobs_and_leaves_others_unaffected() {
    let bench = Bench::new().await;
    let run_at = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let change = Reschedule { run_at: Some(run_at), attempts: Some(1), ..Reschedule::default() };
    let changed = bench.utils.reschedule_jobs(&bench.given(), &change).await.unwrap();
    assert_eq!(ids(&changed), bench.changeable());
    for job in &changed {
        let error = (job.id == bench.failed).then_some("Failed forever");
        assert_eq!((job.run_at, job.attempts, job.last_error.as_deref()), (run_at, 1, error));
        assert_eq!(job.state, JobState::Retrying);
    }
    bench.others_are_as_they_were().await;
}

#[tokio::test]
async fn zero_is_a_value_when_jobs_are_rescheduled() {
    let bench = Bench::new().await;
    let change = Reschedule { priority: Some(7), max_attempts: Some(3), ..Reschedule::default() };
    bench.utils.reschedule_jobs(&[bench.failed], &change).await.unwrap();
    let change = Reschedule { priority: Some(0), attempts: Some(0), ..Reschedule::default() };
    let changed = bench.utils.reschedule_jobs(&[bench.failed], &change).await.unwrap();
    assert_eq!((changed[0].priority, changed[0].attempts, changed[0].max_attempts), (0, 0, 3));
    assert_eq!(changed[0].state, JobState::Ready);
}

#[tokio::test]
async fn unlocks_the_jobs_of_the_given_workers_and_leaves_others_unaffected() {
    let database = TestDatabase::installed().await;
    let utils = WorkerUtils::new(database.database());
    for (worker, queue) in [
        ("pool-1", Some("test")),
        ("pool-2", None),
        ("pool-3", None),
        ("pool-2", Some("test2")),
        ("pool-3", Some("test3")),
    ] {
        let job = NewJob { queue_name: queue.map(str::to_owned), ..NewJob::new("job") };
        let id = utils.add_job(&job).await.unwrap().id;
        database
            .execute(&format!(
                "update graphile_worker._private_jobs set locked_at = now(), locked_by = '{worker}' where id = {id};
                 update graphile_worker._private_job_queues set locked_at = now(), locked_by = '{worker}'
                   where queue_name = '{}'",
                queue.unwrap_or("none")
            ))
            .await;
    }
    let unlocked = utils.force_unlock_workers(&["pool-2", "pool-3", "pool-2", "nobody"]).await.unwrap();
    let told: Vec<_> = unlocked.iter().map(|worker| (worker.worker.as_str(), worker.jobs, worker.queues)).collect();
    assert_eq!(told, [("nobody", 0, 0), ("pool-2", 2, 1), ("pool-3", 2, 1)]);
    let jobs = database.jobs().await;
    for job in jobs {
        let expected = (job.queue.as_deref() == Some("test")).then_some("pool-1");
        assert_eq!(job.locked_by.as_deref(), expected, "{job:?}");
    }
    let client = database.client().await;
    let sql = "select queue_name, locked_by from graphile_worker._private_job_queues where locked_by is not null";
    let queues = client.query(sql, &[]).await.unwrap();
    assert_eq!(queues.len(), 1);
    assert_eq!((queues[0].get::<_, &str>(0), queues[0].get::<_, &str>(1)), ("test", "pool-1"));
}

#[tokio::test]
async fn removes_a_job_that_waits_and_disarms_one_that_runs() {
    let database = TestDatabase::installed().await;
    let utils = WorkerUtils::new(database.database());
    let keyed = |key: &str| NewJob { job_key: Some(key.to_owned()), ..NewJob::new("t") };
    let waiting = utils.add_job(&keyed("a")).await.unwrap().id;
    let running = utils.add_job(&keyed("b")).await.unwrap().id;
    let lock =
        "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w', attempts = 1 where key = 'b'";
    database.execute(lock).await;
    assert_eq!(utils.remove_job("a").await.unwrap().map(|job| job.id), Some(waiting));
    let disarmed = utils.remove_job("b").await.unwrap().expect("the running job");
    assert_eq!((disarmed.id, disarmed.state, disarmed.key), (running, JobState::Running, None));
    let stored = database.only_job().await;
    assert_eq!((stored.id, stored.attempts), (running, stored.max_attempts));
    assert_eq!(utils.remove_job("a").await.unwrap(), None);
}

#[tokio::test]
async fn cleanup_with_delete_permafailed_jobs_leaves_locked_and_regular_ones() {
    let bench = Bench::new().await;
    let done = bench.utils.cleanup(&[CleanupTask::DeletePermafailedJobs], &[]).await.unwrap();
    assert_eq!(done, [CleanedUp { task: CleanupTask::DeletePermafailedJobs, deleted: 1, refused: Vec::new() }]);
    let left: Vec<i64> = bench.database.jobs().await.iter().map(|job| job.id).collect();
    assert_eq!(left, [bench.regular[0], bench.regular[1], bench.locked, bench.untouched]);

    bench.database.execute("update graphile_worker._private_jobs set attempts = max_attempts").await;
    let done = bench.utils.cleanup(&[CleanupTask::DeletePermafailedJobs], &[]).await.unwrap();
    assert_eq!(done[0].deleted, 3);
    assert_eq!(bench.database.only_job().await.id, bench.locked, "a job that is locked at its last try still runs");
}

#[tokio::test]
async fn cleanup_with_gc_job_queues_takes_only_those_without_jobs_and_locks() {
    let database = TestDatabase::installed().await;
    let utils = WorkerUtils::new(database.database());
    for queue in [Some("test"), Some("empty"), Some("empty but locked"), None] {
        let job = NewJob { queue_name: queue.map(str::to_owned), ..NewJob::new("job") };
        let id = utils.add_job(&job).await.unwrap().id;
        if queue.is_some_and(|name| name.starts_with("empty")) {
            utils.complete_jobs(&[id]).await.unwrap();
        }
    }
    database
        .execute(
            "update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'w'
               where queue_name = 'empty but locked'",
        )
        .await;
    let done = utils.cleanup(&[CleanupTask::GcJobQueues], &[]).await.unwrap();
    assert_eq!(done, [CleanedUp { task: CleanupTask::GcJobQueues, deleted: 1, refused: Vec::new() }]);
    assert_eq!(names(&database, "queue_name", "_private_job_queues").await, ["empty but locked", "test"]);
}

#[tokio::test]
async fn cleanup_with_gc_task_identifiers_takes_unused_names_but_those_to_keep() {
    let database = TestDatabase::installed().await;
    let utils = WorkerUtils::new(database.database());
    for name in ["job1", "job2", "job3"] {
        let id = utils.add_job(&NewJob::new(name)).await.unwrap().id;
        if name != "job3" {
            utils.complete_jobs(&[id]).await.unwrap();
        }
    }
    let done = utils.cleanup(&[CleanupTask::GcTaskIdentifiers], &["job1"]).await.unwrap();
    assert_eq!(done, [CleanedUp { task: CleanupTask::GcTaskIdentifiers, deleted: 1, refused: Vec::new() }]);
    assert_eq!(names(&database, "identifier", "_private_tasks").await, ["job1", "job3"]);
}

/// The names of what failed jobs alone used can go in the same call: the order is not that of the arguments.
#[tokio::test]
async fn cleanups_are_done_in_their_own_order() {
    let database = TestDatabase::installed().await;
    let utils = WorkerUtils::new(database.database());
    let job = NewJob { queue_name: Some("q".to_owned()), ..NewJob::new("job") };
    let id = utils.add_job(&job).await.unwrap().id;
    utils.permanently_fail_jobs(&[id], None).await.unwrap();
    let all = [CleanupTask::GcJobQueues, CleanupTask::GcTaskIdentifiers, CleanupTask::DeletePermafailedJobs];
    let deleted: Vec<u64> = utils.cleanup(&all, &[]).await.unwrap().iter().map(|done| done.deleted).collect();
    assert_eq!(deleted, [1, 1, 1]);
}

/// Whoever adds a job has made sure of its names before the job is there for others to see.
#[tokio::test]
async fn cleanup_waits_for_jobs_that_are_being_added() {
    let database = TestDatabase::installed().await;
    let utils = WorkerUtils::new(database.database());
    let id = utils.add_job(&NewJob { queue_name: Some("q".to_owned()), ..NewJob::new("t") }).await.unwrap().id;
    utils.complete_jobs(&[id]).await.unwrap();

    let mut adding = database.client().await;
    let transaction = adding.transaction().await.unwrap();
    transaction.batch_execute("select graphile_worker.add_job('t', queue_name => 'q')").await.unwrap();
    let cleaning =
        tokio::spawn(
            async move { utils.cleanup(&[CleanupTask::GcTaskIdentifiers, CleanupTask::GcJobQueues], &[]).await },
        );
    let client = database.client().await;
    let waits = "select exists (select from pg_locks where not granted and mode = 'ShareRowExclusiveLock')";
    while !client.query_one(waits, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(!cleaning.is_finished(), "it did not wait");
        tokio::task::yield_now().await;
    }
    transaction.commit().await.unwrap();
    let deleted: Vec<u64> = cleaning.await.unwrap().unwrap().iter().map(|done| done.deleted).collect();
    assert_eq!(deleted, [0, 0]);
    let job = database.only_job().await;
    assert_eq!((job.task.as_str(), job.queue.as_deref()), ("t", Some("q")));
}

async fn names(database: &TestDatabase, column: &str, table: &str) -> Vec<String> {
    let sql = format!("select {column} from graphile_worker.{table} order by 1");
    database.client().await.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}
