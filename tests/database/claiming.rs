//! Which jobs are claimed, in which order, and by how many at once.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use taskbay::{
    migrate,
    queue::{ClaimedJob, Conditions, Database, Job, NewJob, Session, TaskIds},
};
use tokio::task::JoinSet;

use crate::harness::postgres::TestDatabase;

/// A fresh database, a session, and the task `t`.
async fn fresh() -> (TestDatabase, Database, Session, Arc<TaskIds>) {
    let test = TestDatabase::new().await;
    let database = test.database();
    migrate::prepare(&database).await.unwrap();
    let session = database.session().await.unwrap();
    let task = Arc::new(session.task_ids(&["t"]).await.unwrap());
    (test, database, session, task)
}

/// Jobs of the task `t` in the queues named, in this order; `-` is no queue.
fn in_queues(queues: &[&str]) -> Vec<NewJob> {
    let job = |queue: &&str| NewJob { queue_name: (*queue != "-").then(|| (*queue).to_owned()), ..NewJob::new("t") };
    queues.iter().map(job).collect()
}

fn ids(jobs: &[Job]) -> Vec<i64> {
    jobs.iter().map(|job| job.id).collect()
}

fn completed(jobs: &[Job]) -> Vec<ClaimedJob> {
    jobs.iter().map(ClaimedJob::of).collect()
}

#[tokio::test]
async fn the_most_urgent_come_first_with_and_without_queues() {
    let (test, database, session, task) = fresh().await;
    // Priority, seconds that it is due, queue.
    let rows = [(0, 10, "-"), (5, 90, "a"), (-1, 5, "-"), (0, 20, "b"), (0, 30, "-"), (-1, 6, "c"), (5, 95, "-")];
    let jobs: Vec<NewJob> = rows
        .iter()
        .map(|(priority, due, queue)| NewJob {
            priority: Some(*priority),
            run_at: Some(std::time::SystemTime::now() - Duration::from_secs(*due)),
            ..in_queues(&[queue]).remove(0)
        })
        .collect();
    let added = session.add_jobs(&jobs).await.unwrap();
    let order: Vec<i64> = [5, 2, 4, 3, 0, 6, 1].iter().map(|place: &usize| added[*place].id).collect();
    for limit in 1..=7 {
        let claimed = session.get_jobs("w", &task, limit, Conditions::default()).await.unwrap();
        assert_eq!(ids(&claimed), order[..limit], "the first {limit}");
        test.client().await.batch_execute("select graphile_worker.force_unlock_workers('{w}')").await.unwrap();
        let again = "update graphile_worker._private_jobs set attempts = 0";
        test.client().await.batch_execute(again).await.unwrap();
        database.reset_cursors();
    }
}

#[tokio::test]
async fn a_claim_marks_job_and_queue_and_touches_nothing_else() {
    let (test, _database, session, task) = fresh().await;
    let added = session.add_jobs(&in_queues(&["q", "-"])).await.unwrap();
    let claimed = session.get_jobs("taskbay-1", &task, 10, Conditions::default()).await.unwrap();
    let locked_at = claimed[0].locked_at;
    let expected: Vec<Job> = added.into_iter().map(|job| Job { attempts: 1, locked_at, ..job }).collect();
    assert_eq!(claimed, expected);
    let at_that_time = "select count(*) from graphile_worker._private_jobs where locked_at = $1";
    let stored = test.client().await.query_one(at_that_time, &[&locked_at.expect("it is known")]).await.unwrap();
    assert_eq!(stored.get::<_, i64>(0), 2);
    assert_eq!(claimed[0].queue_name.as_deref(), Some("q"));
    let client = test.client().await;
    let marks = "select count(*) from (
        select locked_at, locked_by from graphile_worker._private_jobs where updated_at = created_at and revision = 0
        union all select locked_at, locked_by from graphile_worker._private_job_queues
      ) as marked where locked_by = 'taskbay-1' and locked_at > now() - interval '1 minute'";
    assert_eq!(client.query_one(marks, &[]).await.unwrap().get::<_, i64>(0), 3);
}

#[tokio::test]
async fn what_is_not_due_exhausted_locked_or_of_another_task_stays() {
    let (test, _database, session, task) = fresh().await;
    for queues in [["-"; 5], ["a", "b", "c", "d", "e"]] {
        let added = ids(&session.add_jobs(&in_queues(&queues)).await.unwrap());
        session
            .add_job(&NewJob { queue_name: in_queues(&queues).remove(4).queue_name, ..NewJob::new("other") })
            .await
            .unwrap();
        let client = test.client().await;
        let change = async |change: &str, id: i64| {
            client
                .batch_execute(&format!("update graphile_worker._private_jobs set {change} where id = {id}"))
                .await
                .unwrap();
        };
        change("run_at = now() + interval '1 minute'", added[0]).await;
        change("attempts = max_attempts", added[1]).await;
        change("locked_at = now() - interval '9 hours', locked_by = 'x'", added[2]).await;
        change("attempts = max_attempts - 1", added[3]).await;
        let claimed = session.get_jobs("w", &task, 10, Conditions::default()).await.unwrap();
        assert_eq!(HashSet::<i64>::from_iter(ids(&claimed)), HashSet::from([added[3], added[4]]));
        session.complete_jobs("w", &completed(&claimed)).await.unwrap();
    }
    assert_eq!(session.get_jobs("w", &TaskIds::default(), 10, Conditions::default()).await.unwrap(), []);
    assert_eq!(session.get_jobs("w", &task, 0, Conditions::default()).await.unwrap(), []);
}

#[tokio::test]
async fn a_queue_gives_one_job_at_a_time_and_does_not_hold_up_the_others() {
    let (_test, _database, session, task) = fresh().await;
    let mut queues = vec!["big"; 50];
    queues.extend(["small", "-", "other", "big"]);
    let added = ids(&session.add_jobs(&in_queues(&queues)).await.unwrap());
    let claimed = session.get_jobs("w", &task, 5, Conditions::default()).await.unwrap();
    assert_eq!(ids(&claimed), [added[0], added[50], added[51], added[52]], "one of each queue, and the one without");
    assert_eq!(session.get_jobs("w", &task, 5, Conditions::default()).await.unwrap(), [], "all queues are busy");
    session.complete_jobs("w", &completed(&claimed[..1])).await.unwrap();
    assert_eq!(ids(&session.get_jobs("v", &task, 5, Conditions::default()).await.unwrap()), [added[1]]);
}

#[tokio::test]
async fn a_queue_that_another_program_has_locked_gives_nothing() {
    let (test, _database, session, task) = fresh().await;
    session.add_jobs(&in_queues(&["q"])).await.unwrap();
    let mut other = test.client().await;
    let claim = other.transaction().await.unwrap();
    claim.batch_execute("select from graphile_worker._private_job_queues for update").await.unwrap();
    let claimed =
        tokio::time::timeout(Duration::from_secs(60), session.get_jobs("w", &task, 1, Conditions::default())).await;
    assert_eq!(claimed.expect("it does not wait for the lock").unwrap(), []);
    claim.rollback().await.unwrap();
    assert_eq!(session.get_jobs("w", &task, 1, Conditions::default()).await.unwrap().len(), 1);
}

/// Who works in which queue at this moment, as the claimers tell it.
#[derive(Debug, Default)]
struct Floor {
    busy: HashSet<String>,
    done: BTreeMap<i64, String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_claimers_run_every_job_once_and_never_two_of_one_queue() {
    let (_test, database, session, task) = fresh().await;
    let names = ["a", "b", "c", "d", "-"];
    let total = 600;
    let queues: Vec<&str> = (0..total).map(|number| names[(number * 7 + number / 3) % names.len()]).collect();
    session.add_jobs(&in_queues(&queues)).await.unwrap();
    drop(session);
    let floor = Arc::new(Mutex::new(Floor::default()));
    let mut claimers = JoinSet::new();
    for number in 0..8 {
        let (database, floor, task) = (database.clone(), floor.clone(), task.clone());
        claimers.spawn(async move {
            let owner = format!("claimer-{number}");
            let session = database.session().await.unwrap();
            let started = Instant::now();
            while floor.lock().unwrap().done.len() < total {
                assert!(started.elapsed() < Duration::from_secs(60), "all are done in time");
                let jobs = session.get_jobs(&owner, &task, 1 + number, Conditions::default()).await.unwrap();
                for job in &jobs {
                    let mut floor = floor.lock().unwrap();
                    let again = floor.done.insert(job.id, owner.clone());
                    assert!(again.is_none(), "job {} was claimed by {owner} and before by {again:?}", job.id);
                    if let Some(queue) = &job.queue_name {
                        assert!(floor.busy.insert(queue.clone()), "two jobs of {queue} at once");
                    }
                }
                tokio::task::yield_now().await;
                // They count as ended before the database hears of it, because right after that the next one may start.
                for queue in jobs.iter().filter_map(|job| job.queue_name.as_ref()) {
                    floor.lock().unwrap().busy.remove(queue);
                }
                let stored = session.complete_jobs(&owner, &completed(&jobs)).await.unwrap();
                assert_eq!(stored.len(), jobs.len(), "each of them was still ours");
            }
        });
    }
    while let Some(ended) = claimers.join_next().await {
        ended.unwrap();
    }
    let owners: HashSet<String> = floor.lock().unwrap().done.values().cloned().collect();
    assert!(owners.len() > 1, "more than one had a share");
    let session = database.session().await.unwrap();
    assert_eq!(session.get_jobs("w", &task, 10, Conditions::default()).await.unwrap(), []);
}

#[tokio::test]
async fn claiming_reads_little_of_a_long_backlog() {
    let (test, database, session, task) = fresh().await;
    let client = test.client().await;
    // As many queues as jobs in them, and many more jobs without any.
    let fill = "
        insert into graphile_worker._private_job_queues (queue_name) select 'q' || i from generate_series(1, 2000) as i;
        insert into graphile_worker._private_jobs (task_id, job_queue_id, run_at)
          select 1, case when i > 48000 then i - 48000 end, now() - (50000 - i) * interval '1 second'
          from generate_series(1, 50000) as i;
        vacuum analyze graphile_worker._private_jobs; vacuum analyze graphile_worker._private_job_queues";
    for statement in fill.split(';') {
        client.batch_execute(statement).await.unwrap();
    }
    drop(session);
    let session = database.session().await.unwrap();
    let read = async || -> i64 {
        let sql = "select (sum(idx_tup_read) + (select sum(seq_tup_read) from pg_stat_user_tables))::int8
                   from pg_stat_user_indexes";
        client.query_one(sql, &[]).await.unwrap().get(0)
    };
    let before = read().await;
    // More often than Postgres plans a prepared statement anew.
    for _ in 0..12 {
        assert_eq!(session.get_jobs("w", &task, 10, Conditions::default()).await.unwrap().len(), 10);
    }
    // The counters of a session are handed in when it ends.
    drop((session, database));
    let counted = async {
        loop {
            let after = read().await;
            if after > before {
                return after;
            }
        }
    };
    let after = tokio::time::timeout(Duration::from_secs(60), counted).await.expect("the counters move");
    assert!(after - before < 5000, "{} rows were read for 120 jobs", after - before);
}
