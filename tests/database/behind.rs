//! Jobs that turn up where claims have passed already: found at once where that can be known, and by the next lap elsewhere.
//!
//! There is a long obstacle in front, so that a lap costs something and claims begin where the last one ended.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use taskbay::queue::{ClaimedJob, Conditions, Database, Job, NewJob, Session, TaskIds};
use tokio::task::JoinSet;

use crate::harness::postgres::TestDatabase;

const NOTHING: Conditions<'static> = Conditions { forbidden_flags: &[], now: None, left_out: &[] };

struct Site {
    test: TestDatabase,
    database: Database,
    session: Session,
    task: Arc<TaskIds>,
}

impl Site {
    /// Jobs of another task stand in front, and one claim has passed them.
    async fn new() -> Self {
        let test = TestDatabase::installed().await;
        let database = test.database();
        let session = database.session().await.unwrap();
        let tasks = session.task_ids(&["mine", "other"]).await.unwrap();
        let obstacle = format!(
            "insert into graphile_worker._private_jobs (task_id, run_at)
             select {}, now() - interval '1 hour' + i * interval '1 millisecond' from generate_series(1, 50000) as i",
            tasks.id("other").unwrap()
        );
        test.execute(&obstacle).await;
        test.execute("insert into graphile_worker._private_job_queues (queue_name) values ('q')").await;
        let task = Arc::new(session.task_ids(&["mine"]).await.unwrap());
        let site = Self { task, session, database, test };
        site.add(NewJob::new("mine")).await;
        assert_eq!(site.claim().await.len(), 1);
        site
    }

    async fn add(&self, job: NewJob) -> i64 {
        self.database.add_job(&job).await.unwrap().id
    }

    async fn claim(&self) -> Vec<Job> {
        self.session.get_jobs("w", &self.task, 10, NOTHING).await.unwrap()
    }

    async fn claim_ids(&self) -> Vec<i64> {
        self.claim().await.iter().map(|job| job.id).collect()
    }

    async fn complete(&self, jobs: &[Job]) {
        let jobs: Vec<ClaimedJob> = jobs.iter().map(ClaimedJob::of).collect();
        self.session.complete_jobs("w", &jobs).await.unwrap();
    }

    async fn give_back(&self, jobs: &[Job]) {
        let jobs: Vec<ClaimedJob> = jobs.iter().map(ClaimedJob::of).collect();
        self.session.return_jobs("w", &jobs).await.unwrap();
    }

    /// Claims whenever it is said that this may bring something, until it does.
    async fn claim_when_told(&self) -> Vec<i64> {
        let began = Instant::now();
        loop {
            let claimed = self.claim_ids().await;
            if !claimed.is_empty() {
                return claimed;
            }
            let rest = self.database.next_full_scan(&self.task, NOTHING).expect("it has not seen everything");
            assert!(rest <= Duration::from_secs(1), "{rest:?} is long");
            assert!(began.elapsed() < Duration::from_secs(60), "it was promised, and is not found");
            // Nothing will happen until then.
            tokio::time::sleep(rest).await;
        }
    }
}

fn in_queue(queue: &str) -> NewJob {
    NewJob { queue_name: Some(queue.to_owned()), ..NewJob::new("mine") }
}

fn overdue() -> NewJob {
    NewJob { run_at: Some(SystemTime::now() - Duration::from_secs(7200)), ..NewJob::new("mine") }
}

#[tokio::test]
async fn a_job_for_a_time_that_has_passed_is_found_within_a_second() {
    let site = Site::new().await;
    for job in [overdue(), NewJob { queue_name: Some("p".to_owned()), ..overdue() }] {
        let id = site.add(job).await;
        assert_eq!(site.claim_when_told().await, [id]);
    }
}

/// As a test suite does between two tests. Ids begin at 1 again, and nothing of what was passed is there any more.
#[tokio::test]
async fn after_a_truncate_nothing_is_passed() {
    let site = Site::new().await;
    for queue in [None, Some("p".to_owned())] {
        let tables = "_private_jobs, graphile_worker._private_tasks, graphile_worker._private_job_queues";
        site.test.execute(&format!("truncate graphile_worker.{tables} restart identity")).await;
        let id = site.add(NewJob { queue_name: queue, ..overdue() }).await;
        assert_eq!(site.claim_ids().await, [id]);
        assert!(!site.task.are_outdated(), "the task has the same id again");
    }
}

/// A host asks for the ids of its tasks after each reload.
#[tokio::test]
async fn asking_for_the_same_tasks_again_keeps_the_place() {
    let site = Site::new().await;
    let names = ["mine", "a", "b", "c", "d", "e", "f", "g"];
    let tasks = site.session.task_ids(&names).await.unwrap();
    assert_eq!(site.session.get_jobs("w", &tasks, 10, NOTHING).await.unwrap(), []);
    // Nothing that it could have missed on its way here, since it began at the beginning.
    assert_eq!(site.database.next_full_scan(&tasks, NOTHING), None);
    assert_eq!(site.session.get_jobs("w", &tasks, 10, NOTHING).await.unwrap(), []);
    for _ in 0..5 {
        let again = site.session.task_ids(&names).await.unwrap();
        assert!(site.database.next_full_scan(&again, NOTHING).is_some(), "it begins at the beginning");
    }
}

#[tokio::test]
async fn whoever_knows_that_something_is_there_finds_it_at_once() {
    let site = Site::new().await;
    for job in [overdue(), NewJob { queue_name: Some("p".to_owned()), ..overdue() }] {
        let id = site.add(job).await;
        site.database.reset_cursors();
        assert_eq!(site.claim_ids().await, [id]);
    }
}

#[tokio::test]
async fn new_jobs_are_found_at_once_whatever_their_priority() {
    let site = Site::new().await;
    for priority in [0, -7, 3, -7, i16::MIN, 1, i16::MAX, 0] {
        for queue in [None, Some("q".to_owned())] {
            let id = site.add(NewJob { priority: Some(priority), queue_name: queue, ..NewJob::new("mine") }).await;
            let claimed = site.claim().await;
            assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [id], "priority {priority}");
            site.complete(&claimed).await;
        }
    }
}

/// `run_at` is the time when the transaction began.
#[tokio::test]
async fn a_job_whose_transaction_ended_late_is_found_at_once() {
    let site = Site::new().await;
    let mut slow = site.test.client().await;
    let adding = slow.transaction().await.unwrap();
    let row = adding.query_one("select (graphile_worker.add_job('mine')).id", &[]).await.unwrap();
    let quick = site.add(NewJob::new("mine")).await;
    assert_eq!(site.claim_ids().await, [quick]);
    adding.commit().await.unwrap();
    assert_eq!(site.claim_ids().await, [row.get::<_, i64>(0)]);
}

#[tokio::test]
async fn what_is_given_back_is_found_at_once() {
    let site = Site::new().await;
    for job in [overdue(), NewJob { queue_name: Some("p".to_owned()), ..overdue() }] {
        let id = site.add(job).await;
        site.database.reset_cursors();
        let claimed = site.claim().await;
        assert_eq!(claimed[0].id, id);
        site.add(NewJob::new("mine")).await;
        assert_eq!(site.claim().await.len(), 1, "claims have gone on");
        site.give_back(&claimed).await;
        let again = site.claim().await;
        assert_eq!(again.iter().map(|job| (job.id, job.attempts)).collect::<Vec<_>>(), [(id, 1)]);
        site.complete(&again).await;
    }
}

#[tokio::test]
async fn the_next_job_of_a_queue_is_found_when_the_queue_is_free_whoever_frees_it() {
    let site = Site::new().await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(site.add(in_queue("q")).await);
    }
    let mut claimed = site.claim().await;
    assert_eq!(claimed[0].id, ids[0]);
    assert_eq!(site.claim_ids().await, [0_i64; 0], "the queue is busy");
    for (place, id) in ids.iter().enumerate().skip(1) {
        if place % 2 == 0 {
            site.complete(&claimed).await;
        } else {
            // As graphile-worker does it.
            site.test
                .execute("delete from graphile_worker._private_jobs where job_queue_id is not null and locked_by = 'w'")
                .await;
            site.test
                .execute("update graphile_worker._private_job_queues set locked_by = null, locked_at = null")
                .await;
        }
        claimed = site.claim().await;
        assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [*id]);
    }
}

/// A job of a queue that turns up before those that were passed comes before them, too.
#[tokio::test]
async fn the_most_urgent_job_of_a_queue_that_was_passed_comes_first() {
    let site = Site::new().await;
    let first = site.add(in_queue("q")).await;
    let second = site.add(in_queue("q")).await;
    let claimed = site.claim().await;
    assert_eq!(claimed[0].id, first);
    assert_eq!(site.claim_ids().await, [0_i64; 0]);
    let urgent = site.add(NewJob { priority: Some(-1), ..in_queue("q") }).await;
    site.complete(&claimed).await;
    let claimed = site.claim().await;
    assert_eq!(claimed[0].id, urgent);
    site.complete(&claimed).await;
    assert_eq!(site.claim_ids().await, [second]);
}

/// More queues than one claim looks at, all of them passed while they were busy.
#[tokio::test]
async fn none_of_many_queues_is_forgotten() {
    let site = Site::new().await;
    let fill = format!(
        "insert into graphile_worker._private_job_queues (queue_name, locked_at, locked_by)
           select 'many ' || i, now(), 'x' from generate_series(1, 1000) as i;
         insert into graphile_worker._private_jobs (task_id, job_queue_id)
           select {}, id from graphile_worker._private_job_queues, generate_series(1, 2) where locked_by = 'x'",
        site.task.id("mine").unwrap()
    );
    for statement in fill.split(';') {
        site.test.execute(statement).await;
    }
    assert_eq!(site.claim_ids().await, [0_i64; 0]);
    site.test.execute("update graphile_worker._private_job_queues set locked_at = null, locked_by = null").await;
    let mut done = HashSet::new();
    let began = Instant::now();
    while done.len() < 2000 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} of 2,000 are done", done.len());
        let claimed = site.session.get_jobs("w", &site.task, 500, NOTHING).await.unwrap();
        let queues: HashSet<_> = claimed.iter().map(|job| job.job_queue_id).collect();
        assert_eq!(queues.len(), claimed.len(), "one job of each queue");
        assert!(claimed.iter().all(|job| done.insert(job.id)), "a job was claimed twice");
        site.complete(&claimed).await;
    }
}

/// Several processes, each with several claimers, and jobs of all kinds behind the obstacle.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_hosts_run_every_job_once_and_never_two_of_one_queue() {
    const JOBS: usize = 1200;
    let site = Site::new().await;
    let fill = format!(
        "insert into graphile_worker._private_job_queues (queue_name) select 'q' || i from generate_series(1, 5) as i;
         insert into graphile_worker._private_jobs (task_id, priority, run_at, job_queue_id)
           select {}, i % 4, now() - (i * 7919 % 3000) * interval '1 second',
             case when i % 3 = 0 then (select id from graphile_worker._private_job_queues where queue_name = 'q' || (i % 5 + 1)) end
           from generate_series(1, {JOBS}) as i",
        site.task.id("mine").unwrap()
    );
    for statement in fill.split(';') {
        site.test.execute(statement).await;
    }
    #[derive(Default)]
    struct Floor {
        busy: HashSet<i32>,
        done: HashSet<i64>,
    }
    const FREE_JOB: &str = "update graphile_worker._private_jobs set locked_by = null, locked_at = null where id = $1";
    const FREE_QUEUE: &str =
        "update graphile_worker._private_job_queues set locked_by = null, locked_at = null where id = $1";
    let floor = Arc::new(Mutex::new(Floor::default()));
    let mut claimers = JoinSet::new();
    for host in 0..3 {
        let database = site.test.database();
        for number in 0..2 {
            let (database, floor, task) = (database.clone(), Arc::clone(&floor), Arc::clone(&site.task));
            let client = site.test.client().await;
            claimers.spawn(async move {
                let owner = format!("host-{host}-{number}");
                let session = database.session().await.unwrap();
                let began = Instant::now();
                while floor.lock().unwrap().done.len() < JOBS {
                    assert!(began.elapsed() < Duration::from_secs(60), "{} are done", floor.lock().unwrap().done.len());
                    let jobs = session.get_jobs(&owner, &task, 5 + 20 * number, NOTHING).await.unwrap();
                    for job in &jobs {
                        let mut floor = floor.lock().unwrap();
                        assert!(floor.done.insert(job.id), "job {} was claimed twice", job.id);
                        assert!(job.job_queue_id.is_none_or(|queue| floor.busy.insert(queue)), "two of one queue");
                    }
                    let (back, done): (Vec<_>, Vec<_>) =
                        jobs.iter().partition(|job| job.id % 10 == 0 && job.attempts == 1);
                    tokio::task::yield_now().await;
                    {
                        let mut floor = floor.lock().unwrap();
                        for job in &jobs {
                            job.job_queue_id.map(|queue| floor.busy.remove(&queue));
                        }
                        for job in &back {
                            floor.done.remove(&job.id);
                        }
                    }
                    // Some are unlocked by hand: they stand where claims have passed, and nobody is told.
                    for job in back {
                        client.execute(FREE_JOB, &[&job.id]).await.unwrap();
                        client.execute(FREE_QUEUE, &[&job.job_queue_id]).await.unwrap();
                    }
                    let done: Vec<ClaimedJob> = done.iter().map(|job| ClaimedJob::of(job)).collect();
                    assert_eq!(session.complete_jobs(&owner, &done).await.unwrap().len(), done.len());
                }
            });
        }
    }
    while let Some(ended) = claimers.join_next().await {
        ended.unwrap();
    }
}
