//! The express lane's transaction, statement by statement: what it locks, what others see of it, and what it leaves behind.

use std::time::{Duration, SystemTime};

use taskbay::queue::{ClaimedJob, Conditions, FailedJob, Job, NewJob, Session, Settlement, TaskIds};
use tokio::time::timeout;

use crate::harness::postgres::TestDatabase;

const NOTHING: Conditions<'static> = Conditions { forbidden_flags: &[], now: None, left_out: &[] };

struct Bench {
    test: TestDatabase,
    session: Session,
    task: TaskIds,
}

impl Bench {
    async fn new() -> Self {
        let test = TestDatabase::installed().await;
        let session = test.database().session().await.unwrap();
        session.prepare_express().await.unwrap();
        let task = session.task_ids(&["t"]).await.unwrap();
        Self { session, task, test }
    }

    async fn another_session(&self) -> Session {
        self.test.database().session().await.unwrap()
    }

    async fn add(&self, jobs: usize) -> Vec<i64> {
        let mut ids = Vec::new();
        for _ in 0..jobs {
            ids.push(self.test.database().add_job(&NewJob::new("t")).await.unwrap().id);
        }
        ids
    }

    async fn lock(&self, limit: usize) -> Vec<Job> {
        self.session.lock_jobs(&self.task, limit, NOTHING).await.unwrap()
    }

    /// The job's columns but for its times, as text.
    async fn row(&self, id: i64) -> String {
        let sql =
            "select concat_ws(' ', id, payload, priority, attempts, max_attempts, last_error, key, locked_by, revision,
                   locked_at is null, is_available, job_queue_id) from graphile_worker._private_jobs where id = $1";
        let rows = self.test.client().await.query(sql, &[&id]).await.unwrap();
        rows.first().map(|row| row.get(0)).unwrap_or_default()
    }

    async fn locked_at(&self, id: i64) -> SystemTime {
        let sql = "select locked_at from graphile_worker._private_jobs where id = $1";
        self.test.client().await.query_one(sql, &[&id]).await.unwrap().get(0)
    }
}

fn ids(jobs: &[Job]) -> Vec<i64> {
    jobs.iter().map(|job| job.id).collect()
}

fn failure(id: i64, attempt: i16, message: &str, permanent: bool) -> FailedJob {
    let claim = ClaimedJob { id, attempt, keyed: false, job_queue_id: None, locked_at: None };
    FailedJob { claim, message: message.to_owned(), permanent, max_attempts: None, payload: None, crashes: None }
}

#[tokio::test]
async fn jobs_are_locked_in_their_order_and_others_pass_over_them() {
    let bench = Bench::new().await;
    let mut added = bench.add(5).await;
    let urgent = NewJob { priority: Some(-1), ..NewJob::new("t") };
    let urgent = bench.test.database().add_job(&urgent).await.unwrap().id;
    let in_queue = NewJob { queue_name: Some("q".to_owned()), priority: Some(-9), ..NewJob::new("t") };
    let in_queue = bench.test.database().add_job(&in_queue).await.unwrap().id;
    let locked = bench.lock(3).await;
    assert_eq!(ids(&locked), [urgent, added[0], added[1]], "jobs in queues are for the marked lane");
    assert!(locked.iter().all(|job| job.attempts == 1), "the attempt under way counts");

    let other = bench.another_session().await;
    let theirs = other.get_jobs("w", &bench.task, 10, NOTHING).await.unwrap();
    added.drain(..2);
    assert_eq!(ids(&theirs)[0], in_queue);
    assert_eq!(ids(&theirs)[1..], added);
}

#[tokio::test]
async fn what_is_done_is_gone_with_the_commit_and_the_rest_is_as_it_was() {
    let bench = Bench::new().await;
    let added = bench.add(4).await;
    let before = bench.row(added[3]).await;
    assert_eq!(bench.lock(4).await.len(), 4);
    let settlement = Settlement {
        done: vec![added[0]],
        failed: vec![failure(added[1], 1, "no", false)],
        marked: vec![added[2]],
        in_ascii: false,
    };
    let times = bench.session.settle("me", &settlement).await.unwrap();
    assert_eq!(times, [(added[2], bench.locked_at(added[2]).await)].into());
    assert_eq!(bench.row(added[0]).await, "");
    assert_eq!(bench.row(added[3]).await, before);
    let left = bench.another_session().await.get_jobs("w", &bench.task, 10, NOTHING).await.unwrap();
    assert_eq!(ids(&left), [added[3]], "one is done, one waits for its next attempt, one is marked");
    assert!(bench.row(added[2]).await.contains(" me "));
}

/// The same failure in both lanes, and what becomes of the row.
async fn fails_alike(message: &str, permanent: bool, payload: Option<&str>, attempts: i16, allowed: Option<i16>) {
    let bench = Bench::new().await;
    let client = bench.test.client().await;
    let mut rows = Vec::new();
    for express in [false, true] {
        let id = bench.add(1).await[0];
        let sql = "update graphile_worker._private_jobs set attempts = $1, last_error = 'before' where id = $2";
        client.execute(sql, &[&attempts, &id]).await.unwrap();
        let failed = failure(id, attempts + 1, message, permanent);
        let failed = FailedJob { payload: payload.map(str::to_owned), max_attempts: allowed, ..failed };
        if express {
            assert_eq!(ids(&bench.lock(1).await), [id]);
            bench.session.settle("me", &Settlement { failed: vec![failed], ..Settlement::default() }).await.unwrap();
        } else {
            assert_eq!(ids(&bench.session.get_jobs("me", &bench.task, 1, NOTHING).await.unwrap()), [id]);
            bench.session.fail_jobs("me", &[failed]).await.unwrap();
        }
        let waits =
            "select extract(epoch from run_at - updated_at)::float8 from graphile_worker._private_jobs where id = $1";
        let waits: f64 = client.query_one(waits, &[&id]).await.unwrap().get(0);
        rows.push((bench.row(id).await.replacen(&id.to_string(), "", 1), waits));
        // Out of the way of the next one.
        client
            .execute("update graphile_worker._private_jobs set run_at = now() + interval '1 day'", &[])
            .await
            .unwrap();
    }
    let [(marked, marked_waits), (express, express_waits)] = &rows[..] else { panic!() };
    assert_eq!(marked, express);
    assert!((marked_waits - express_waits).abs() < 5.0, "{marked_waits} s and {express_waits} s");
}

#[tokio::test]
async fn a_failed_job_ends_with_the_same_row_as_in_the_marked_lane() {
    fails_alike("no luck", false, None, 0, None).await;
    fails_alike("no luck", true, None, 3, None).await;
    fails_alike("again", false, None, 12, None).await;
    fails_alike("the last", false, None, 24, None).await;
    fails_alike("a \0 and more", false, Some("[1,  2]"), 1, None).await;
    fails_alike(&"long ".repeat(20_000), false, None, 0, None).await;
    fails_alike("the task allows more", false, None, 1, Some(3)).await;
    fails_alike("the last that the task allows", false, None, 2, Some(3)).await;
    fails_alike("more than the task allows by now", false, None, 7, Some(3)).await;
    fails_alike("never again", true, None, 1, Some(3)).await;
}

#[tokio::test]
async fn administrators_wait_for_the_commit_and_see_what_is_then_true() {
    let bench = Bench::new().await;
    let added = bench.add(3).await;
    for (at_commit, call, gives, leaves) in
        [("done", "complete_jobs", 0, 0), ("marked", "complete_jobs", 0, 1), ("withdrawn", "complete_jobs", 1, 0)]
    {
        let id = match at_commit {
            "done" => added[0],
            "marked" => added[1],
            _ => added[2],
        };
        assert_eq!(ids(&bench.lock(1).await), [id], "{at_commit}");
        let client = bench.test.client().await;
        let sql = format!("select count(*) from graphile_worker.{call}(array[{id}]::bigint[])");
        let waiting = tokio::spawn(async move { client.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0) });
        bench.test.wait_until_blocked().await;
        let mut settlement = Settlement::default();
        match at_commit {
            "done" => settlement.done.push(id),
            "marked" => settlement.marked.push(id),
            _ => {}
        }
        bench.session.settle("me", &settlement).await.unwrap();
        let given = timeout(Duration::from_secs(60), waiting).await.expect("it waits for the commit only").unwrap();
        let left = usize::from(!bench.row(id).await.is_empty());
        assert_eq!((given, left), (gives, leaves), "{at_commit}");
    }
}

#[tokio::test]
async fn a_job_that_is_rescheduled_meanwhile_keeps_what_became_of_it() {
    let bench = Bench::new().await;
    let id = bench.add(1).await[0];
    assert_eq!(ids(&bench.lock(1).await), [id]);
    let client = bench.test.client().await;
    let sql = format!("select graphile_worker.reschedule_jobs(array[{id}]::bigint[], priority := 7)");
    let waiting = tokio::spawn(async move { client.batch_execute(&sql).await.unwrap() });
    bench.test.wait_until_blocked().await;
    let settlement = Settlement { failed: vec![failure(id, 1, "no", false)], ..Settlement::default() };
    bench.session.settle("me", &settlement).await.unwrap();
    timeout(Duration::from_secs(60), waiting).await.expect("it waits for the commit only").unwrap();
    let row = bench.row(id).await;
    assert!(row.contains(" 7 1 25 no "), "both took effect: {row}");
}

#[tokio::test]
async fn what_ends_the_connection_leaves_the_jobs_as_they_were() {
    let bench = Bench::new().await;
    let id = bench.add(1).await[0];
    let before = bench.row(id).await;
    let session = bench.another_session().await;
    assert_eq!(ids(&session.lock_jobs(&bench.task, 1, NOTHING).await.unwrap()), [id]);
    bench.test.terminate_others().await;
    let error = session.settle("me", &Settlement { done: vec![id], ..Settlement::default() }).await.unwrap_err();
    assert!(error.connection_lost(), "{error}");
    assert_eq!(bench.row(id).await, before);
}

#[tokio::test]
async fn after_a_lost_connection_only_what_nobody_else_touched_is_locked_again() {
    let bench = Bench::new().await;
    let added = bench.add(6).await;
    let [untouched, done, failed, marked, taken, going] = added[..] else { panic!() };
    let added_at: Vec<SystemTime> = bench.lock(6).await.iter().map(|job| job.created_at).collect();
    let settlement = Settlement {
        done: vec![done],
        failed: vec![failure(failed, 1, "no", false)],
        marked: vec![marked],
        in_ascii: false,
    };
    bench.session.settle("me", &settlement).await.unwrap();
    let client = bench.test.client().await;
    let sql = format!(
        "update graphile_worker._private_jobs set locked_by = 'w', locked_at = now(), attempts = 1 where id = {taken}"
    );
    client.batch_execute(&sql).await.unwrap();
    client
        .batch_execute(&format!("begin; delete from graphile_worker._private_jobs where id = {going}"))
        .await
        .unwrap();
    let session = bench.another_session().await;
    let again = tokio::spawn(async move { session.lock_again("me", &added, &[1; 6], &added_at).await.unwrap() });
    bench.test.wait_until_blocked().await;
    client.batch_execute("commit").await.unwrap();
    let again = again.await.unwrap();
    let when = bench.locked_at(marked).await;
    assert_eq!((again.available, again.marked), (vec![untouched], [(marked, when)].into()));
}

/// After an asynchronous failover, ids are given out again.
#[tokio::test]
async fn after_a_lost_connection_no_job_is_taken_for_another_one_that_had_its_id() {
    let bench = Bench::new().await;
    let added = bench.add(2).await;
    let locked = bench.lock(2).await;
    bench.session.settle("me", &Settlement { done: added.clone(), ..Settlement::default() }).await.unwrap();
    bench.test.execute("alter table graphile_worker._private_jobs alter column id restart").await;
    assert_eq!(bench.add(2).await, added);
    let marks = bench.another_session().await.get_jobs("me", &bench.task, 1, NOTHING).await.unwrap();
    assert_eq!((ids(&marks), marks[0].attempts), (vec![added[0]], 1), "as the lost transaction would have marked it");
    let added_at: Vec<SystemTime> = locked.iter().map(|job| job.created_at).collect();
    let again = bench.another_session().await.lock_again("me", &added, &[1; 2], &added_at).await.unwrap();
    assert_eq!((again.available, again.marked), (vec![], [].into()));
}

#[tokio::test]
async fn a_transaction_that_is_refused_because_of_some_jobs_is_ended_without_them() {
    let bench = Bench::new().await;
    let jobs = bench.add(9).await;
    bench
        .test
        .execute(&format!(
            "create table invoices (job_id bigint references graphile_worker._private_jobs (id) deferrable initially deferred);
             insert into invoices values ({});
             create function refuse() returns trigger language plpgsql as $$ begin raise 'not this one'; end $$;
             create trigger refuse_delete before delete on graphile_worker._private_jobs
               for each row when (old.id in ({}, {})) execute function refuse();
             create trigger refuse_update before update on graphile_worker._private_jobs
               for each row when (old.id = {}) execute function refuse()",
            jobs[2], jobs[4], jobs[6], jobs[6]
        ))
        .await;
    let added_at: Vec<SystemTime> = bench.lock(9).await.iter().map(|job| job.created_at).collect();
    let settlement = Settlement {
        done: jobs[..7].to_vec(),
        failed: vec![failure(jobs[7], 1, "no", false)],
        marked: vec![jobs[8]],
        in_ascii: false,
    };
    assert!(bench.session.settle("me", &settlement).await.unwrap_err().is_refusal());

    let session = bench.another_session().await;
    assert_eq!(session.lock_again("me", &jobs, &[1; 9], &added_at).await.unwrap().available.len(), 9);
    let settled = timeout(Duration::from_secs(60), session.settle_apart("me", &settlement)).await.unwrap().unwrap();
    let sorted = |mut ids: Vec<i64>| {
        ids.sort_unstable();
        ids
    };
    assert_eq!(sorted(settled.refused.iter().map(|(id, _)| *id).collect()), [jobs[2], jobs[4], jobs[6]]);
    assert_eq!(sorted(settled.unmarked.iter().map(|(id, _)| *id).collect()), [jobs[6]]);
    assert_eq!(sorted(settled.marked.keys().copied().collect()), [jobs[2], jobs[4], jobs[8]]);
    for id in [jobs[0], jobs[1], jobs[3], jobs[5]] {
        assert_eq!(bench.row(id).await, "", "it is deleted");
    }
    for (id, time) in &settled.marked {
        assert_eq!(bench.row(*id).await, format!("{id} {{}} 0 1 25 me 0 f f"));
        assert_eq!(bench.locked_at(*id).await, *time);
    }
    assert_eq!(bench.row(jobs[6]).await, format!("{} {{}} 0 0 25 0 t t", jobs[6]), "it is as it was");
    assert_eq!(bench.row(jobs[7]).await, format!("{} {{}} 0 1 25 no 0 t t", jobs[7]));
}
