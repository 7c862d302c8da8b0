//! What completing, failing and returning change, and what they leave alone.

use std::time::{Duration, SystemTime};

use taskbay::{
    migrate,
    queue::{ClaimedJob, Conditions, FailedJob, Job, LONGEST_MESSAGE, NewJob, Session, TaskIds},
};
use tokio_postgres::Client;

use crate::harness::postgres::TestDatabase;

struct Bench {
    test: TestDatabase,
    client: Client,
    session: Session,
    task: TaskIds,
}

impl Bench {
    async fn new() -> Self {
        let test = TestDatabase::new().await;
        let database = test.database();
        migrate::prepare(&database).await.unwrap();
        let session = database.session().await.unwrap();
        let task = session.task_ids(&["t"]).await.unwrap();
        Self { client: test.client().await, test, session, task }
    }

    /// A job in queue `q`, claimed by `owner`.
    async fn claimed(&self, owner: &str) -> Job {
        self.session.add_job(&NewJob { queue_name: Some("q".to_owned()), ..NewJob::new("t") }).await.unwrap();
        self.session.get_jobs(owner, &self.task, 1, Conditions::default()).await.unwrap().remove(0)
    }

    async fn text(&self, sql: &str) -> String {
        self.client
            .query_one(&format!("select ({sql})::text"), &[])
            .await
            .unwrap()
            .get::<_, Option<String>>(0)
            .unwrap_or_default()
    }

    async fn queue_owner(&self) -> String {
        self.text("select locked_by from graphile_worker._private_job_queues where queue_name = 'q'").await
    }
}

/// All that is stored of jobs and queues.
const STORED: &str = "select string_agg(job::text || queue::text, ',')
    from graphile_worker._private_jobs as job, graphile_worker._private_job_queues as queue";

fn failed(job: &Job, message: &str, permanent: bool) -> FailedJob {
    FailedJob { claim: ClaimedJob::of(job), message: message.to_owned(), permanent, max_attempts: None, payload: None }
}

#[tokio::test]
async fn completing_deletes_the_job_and_frees_its_queue() {
    let bench = Bench::new().await;
    let job = bench.claimed("w").await;
    assert_eq!(bench.queue_owner().await, "w");
    let done = [ClaimedJob::of(&job)];
    assert_eq!(bench.session.complete_jobs("w", &done).await.unwrap(), [job.id]);
    assert_eq!(bench.text("select count(*) from graphile_worker._private_jobs").await, "0");
    assert_eq!(bench.queue_owner().await, "");
    assert_eq!(
        bench.session.complete_jobs("w", &done).await.unwrap(),
        Vec::<i64>::new(),
        "a second time finds nothing"
    );
}

#[tokio::test]
async fn who_does_not_hold_a_job_changes_nothing() {
    let bench = Bench::new().await;
    let job = bench.claimed("w").await;
    let before = bench.text(STORED).await;
    for queue in [job.job_queue_id, None] {
        let done = [ClaimedJob { job_queue_id: queue, ..ClaimedJob::of(&job) }];
        assert_eq!(bench.session.complete_jobs("stranger", &done).await.unwrap(), Vec::<i64>::new());
        let back = [ClaimedJob { job_queue_id: queue, ..ClaimedJob::of(&job) }];
        assert_eq!(bench.session.return_jobs("stranger", &back).await.unwrap(), Vec::<i64>::new());
    }
    assert_eq!(bench.session.fail_jobs("stranger", &[failed(&job, "no", true)]).await.unwrap(), []);
    assert_eq!(bench.text(STORED).await, before);
}

#[tokio::test]
async fn a_late_word_about_an_earlier_attempt_changes_nothing() {
    let bench = Bench::new().await;
    let earlier = bench.claimed("w").await;
    bench.session.force_unlock(&["w"]).await.unwrap();
    let later = bench.session.get_jobs("w", &bench.task, 1, Conditions::default()).await.unwrap().remove(0);
    assert_eq!((later.id, later.attempts), (earlier.id, 2), "the same owner has it again");
    let before = bench.text(STORED).await;
    let late = [ClaimedJob::of(&earlier)];
    assert_eq!(bench.session.complete_jobs("w", &late).await.unwrap(), Vec::<i64>::new());
    assert_eq!(bench.session.return_jobs("w", &late).await.unwrap(), Vec::<i64>::new());
    assert_eq!(bench.session.fail_jobs("w", &[failed(&earlier, "no", true)]).await.unwrap(), []);
    assert_eq!(bench.text(STORED).await, before);
    assert_eq!(bench.session.complete_jobs("w", &[ClaimedJob::of(&later)]).await.unwrap(), [later.id]);
}

/// The next claim after a return begins the same attempt: a second return, of which the first one's sender never heard that it
/// had come through, would take the job from under its run.
#[tokio::test]
async fn a_late_return_gives_nothing_back_that_was_claimed_since() {
    let bench = Bench::new().await;
    let earlier = bench.claimed("w").await;
    let returned = [ClaimedJob::of(&earlier)];
    assert_eq!(bench.session.return_jobs("w", &returned).await.unwrap(), [earlier.id]);
    let later = bench.session.get_jobs("w", &bench.task, 1, Conditions::default()).await.unwrap().remove(0);
    assert_eq!((later.id, later.attempts), (earlier.id, earlier.attempts), "the same attempt has begun again");
    let before = bench.text(STORED).await;
    assert_eq!(bench.session.return_jobs("w", &returned).await.unwrap(), Vec::<i64>::new());
    assert_eq!(bench.text(STORED).await, before);
    assert_eq!(bench.session.return_jobs("w", &[ClaimedJob::of(&later)]).await.unwrap(), [later.id]);
}

/// After an asynchronous failover, the same owner may hold the same attempt by another claim, and another job may have the id.
#[tokio::test]
async fn a_result_names_the_time_of_its_claim() {
    let bench = Bench::new().await;
    let job = bench.claimed("w").await;
    let claim = [ClaimedJob::of(&job)];
    let moved = "update graphile_worker._private_jobs set locked_at = locked_at +";
    bench.client.batch_execute(&format!("{moved} interval '1.5 seconds'")).await.unwrap();
    let before = bench.text(STORED).await;
    assert_eq!(bench.session.complete_jobs("w", &claim).await.unwrap(), Vec::<i64>::new());
    assert_eq!(bench.session.fail_jobs("w", &[failed(&job, "no", true)]).await.unwrap(), []);
    assert_eq!(bench.session.return_jobs("w", &claim).await.unwrap(), Vec::<i64>::new());
    assert_eq!(bench.text(STORED).await, before);
}

/// A lock that is renewed is still that of its claim, whose time nobody is told of.
#[tokio::test]
async fn a_result_is_stored_though_the_lock_was_renewed() {
    let bench = Bench::new().await;
    for outcome in ["complete", "fail", "return"] {
        let job = bench.claimed("w").await;
        let old = "set locked_at = locked_at - interval '1 hour'";
        bench.client.batch_execute(&format!("update graphile_worker._private_jobs {old}")).await.unwrap();
        bench.client.batch_execute(&format!("update graphile_worker._private_job_queues {old}")).await.unwrap();
        let job = Job { locked_at: job.locked_at.map(|at| at - Duration::from_secs(3_600)), ..job };
        let renewed = bench.session.refresh_locked("w", Duration::from_secs(60)).await.unwrap();
        let age = "select max(now() - locked_at) < interval '61 seconds' from graphile_worker._private_jobs";
        assert_eq!((renewed, bench.text(age).await.as_str()), (1, "true"), "{outcome}");
        let claim = [ClaimedJob::of(&job)];
        let changed = match outcome {
            "complete" => bench.session.complete_jobs("w", &claim).await.unwrap().len(),
            "fail" => bench.session.fail_jobs("w", &[failed(&job, "no", true)]).await.unwrap().len(),
            _ => bench.session.return_jobs("w", &claim).await.unwrap().len(),
        };
        assert_eq!((changed, bench.queue_owner().await.as_str()), (1, ""), "{outcome}");
        bench.client.batch_execute("delete from graphile_worker._private_jobs").await.unwrap();
    }
}

/// The functions that take a running job's key set its attempts to the most that it may have.
#[tokio::test]
async fn a_job_that_lost_its_key_while_it_ran_is_still_its_owners() {
    let bench = Bench::new().await;
    let outcomes = ["complete", "fail", "return"];
    for (outcome, queue) in outcomes.into_iter().flat_map(|outcome| [(outcome, None), (outcome, Some("q"))]) {
        let queue_name = queue.map(str::to_owned);
        let keyed = NewJob { job_key: Some("k".to_owned()), max_attempts: Some(5), queue_name, ..NewJob::new("t") };
        bench.session.add_job(&keyed).await.unwrap();
        let job = bench.session.get_jobs("w", &bench.task, 1, Conditions::default()).await.unwrap().remove(0);
        bench.client.batch_execute("select graphile_worker.remove_job('k')").await.unwrap();
        let changed = match outcome {
            "complete" => bench.session.complete_jobs("w", &[ClaimedJob::of(&job)]).await.unwrap().len(),
            "fail" => bench.session.fail_jobs("w", &[failed(&job, "no", false)]).await.unwrap().len(),
            _ => bench.session.return_jobs("w", &[ClaimedJob::of(&job)]).await.unwrap().len(),
        };
        assert_eq!(changed, 1, "{outcome}");
        // Only one that has failed is left, and says so.
        let left = bench.test.jobs().await;
        assert_eq!(left.len(), usize::from(outcome == "fail"), "{outcome}: {left:?}");
        assert!(left.iter().all(|job| (job.attempts, job.locked_by.is_none()) == (5, true)), "{left:?}");
        assert_eq!(bench.test.locked_queues().await, 0, "{outcome}");
        bench.client.batch_execute("delete from graphile_worker._private_jobs").await.unwrap();
    }
}

#[tokio::test]
async fn a_queue_that_went_to_another_owner_stays_locked() {
    let bench = Bench::new().await;
    for outcome in ["complete", "fail", "return"] {
        let job = bench.claimed("w").await;
        bench.client.batch_execute("update graphile_worker._private_job_queues set locked_by = 'v'").await.unwrap();
        let changed = match outcome {
            "complete" => bench.session.complete_jobs("w", &[ClaimedJob::of(&job)]).await.unwrap().len(),
            "fail" => bench.session.fail_jobs("w", &[failed(&job, "no", true)]).await.unwrap().len(),
            _ => bench.session.return_jobs("w", &[ClaimedJob::of(&job)]).await.unwrap().len(),
        };
        assert_eq!((changed, bench.queue_owner().await.as_str()), (1, "v"), "{outcome}");
        bench
            .client
            .batch_execute("delete from graphile_worker._private_jobs; delete from graphile_worker._private_job_queues")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_failed_job_waits_longer_each_time() {
    let bench = Bench::new().await;
    let mut job = bench.claimed("w").await;
    for attempt in 1..=12 {
        assert_eq!(job.attempts, attempt);
        let stored = bench.session.fail_jobs("w", &[failed(&job, &format!("no {attempt}"), false)]).await.unwrap();
        assert!(stored[0].retry_at.is_some_and(|at| at > SystemTime::now()));
        let wait: f64 = bench
            .client
            .query_one(
                // The statement's own time is not known here, but nothing else has come between.
                "select extract(epoch from run_at - $1)::float8 from graphile_worker._private_jobs",
                &[&bench.client.query_one("select now()", &[]).await.unwrap().get::<_, SystemTime>(0)],
            )
            .await
            .unwrap()
            .get(0);
        // From 2.7 s up to 6 h 7 min.
        let expected = f64::from(attempt.min(10)).exp();
        // A slow machine may need a while between the two statements.
        assert!((expected - 30.0..=expected).contains(&wait), "attempt {attempt}: {wait} s instead of {expected} s");
        assert_eq!(bench.text("select last_error from graphile_worker._private_jobs").await, format!("no {attempt}"));
        assert_eq!(bench.queue_owner().await, "");
        bench.client.batch_execute("update graphile_worker._private_jobs set run_at = now()").await.unwrap();
        job = bench.session.get_jobs("w", &bench.task, 1, Conditions::default()).await.unwrap().remove(0);
    }
}

#[tokio::test]
async fn the_wait_counts_from_the_time_that_a_job_was_due_if_that_is_later() {
    let bench = Bench::new().await;
    let job = bench.claimed("w").await;
    bench
        .client
        .batch_execute("update graphile_worker._private_jobs set run_at = '2040-01-01 00:00:00Z'")
        .await
        .unwrap();
    bench.session.fail_jobs("w", &[failed(&job, "no", false)]).await.unwrap();
    let due = bench.text("select run_at at time zone 'UTC' from graphile_worker._private_jobs").await;
    assert_eq!(due, "2040-01-01 00:00:02.718282");
}

#[tokio::test]
async fn a_job_fails_for_good_by_request_or_by_its_last_attempt() {
    let bench = Bench::new().await;
    let job = bench.claimed("w").await;
    let stored = bench.session.fail_jobs("w", &[failed(&job, "never again", true)]).await.unwrap();
    assert_eq!((stored[0].id, stored[0].retry_at), (job.id, None));
    let row = "select concat_ws(' ', attempts, max_attempts, is_available, locked_by, last_error) from graphile_worker._private_jobs";
    assert_eq!(bench.text(row).await, "25 25 f never again");

    // The task allows fewer attempts than the job: the row says how many hold, and never fewer than there were.
    let allowed = |job: &Job, attempts| FailedJob { max_attempts: Some(attempts), ..failed(job, "no", false) };
    for (before, allows, expected) in [(0, 5, "1 5 t no"), (4, 5, "5 5 f no"), (7, 5, "8 8 f no"), (3, 50, "4 25 t no")]
    {
        bench.client.batch_execute("delete from graphile_worker._private_jobs").await.unwrap();
        bench.session.add_job(&NewJob::new("t")).await.unwrap();
        let set = format!("update graphile_worker._private_jobs set attempts = {before}");
        bench.client.batch_execute(&set).await.unwrap();
        let job = bench.session.get_jobs("w", &bench.task, 1, Conditions::default()).await.unwrap().remove(0);
        bench.session.fail_jobs("w", &[allowed(&job, allows)]).await.unwrap();
        assert_eq!(bench.text(row).await, expected);
    }

    bench.client.batch_execute("delete from graphile_worker._private_jobs").await.unwrap();
    bench.session.add_job(&NewJob { max_attempts: Some(1), ..NewJob::new("t") }).await.unwrap();
    let job = bench.session.get_jobs("w", &bench.task, 1, Conditions::default()).await.unwrap().remove(0);
    let stored = bench.session.fail_jobs("w", &[failed(&job, "last", false)]).await.unwrap();
    assert_eq!(stored[0].retry_at, None);
}

#[tokio::test]
async fn a_failure_replaces_the_payload_only_where_one_is_given_and_only_of_a_held_job() {
    let bench = Bench::new().await;
    for payload in ["[1,2]", "[3,  4]"] {
        let new = NewJob { payload: Some(payload.to_owned()), ..NewJob::new("t") };
        bench.session.add_job(&new).await.unwrap();
    }
    let jobs = bench.session.get_jobs("w", &bench.task, 2, Conditions::default()).await.unwrap();
    let with = |job: &Job, payload: &str| FailedJob { payload: Some(payload.to_owned()), ..failed(job, "no", false) };
    let stored = "select string_agg(payload::text, ' ' order by id) from graphile_worker._private_jobs";
    let failures = [with(&jobs[0], "[ 2 ]"), failed(&jobs[1], "no", false)];
    assert_eq!(bench.session.fail_jobs("stranger", &failures).await.unwrap(), []);
    assert_eq!(bench.text(stored).await, "[1,2] [3,  4]");
    assert_eq!(bench.session.fail_jobs("w", &failures).await.unwrap().len(), 2);
    assert_eq!(bench.text(stored).await, "[ 2 ] [3,  4]");
    // The lock is gone by now, so that it cannot be replaced a second time.
    assert_eq!(bench.session.fail_jobs("w", &[with(&jobs[1], "[]")]).await.unwrap(), []);
    assert_eq!(bench.text(stored).await, "[ 2 ] [3,  4]");
}

#[tokio::test]
async fn messages_that_postgres_cannot_store_are_stored_cleaned() {
    let bench = Bench::new().await;
    let stored = async |message: &str| {
        bench.client.batch_execute("delete from graphile_worker._private_jobs").await.unwrap();
        let job = bench.claimed("w").await;
        bench.session.fail_jobs("w", &[failed(&job, message, false)]).await.unwrap();
        bench.text("select last_error from graphile_worker._private_jobs").await
    };
    assert_eq!(stored("before\0after — ü").await, "before\\0after — ü");
    let long = "ü".repeat(LONGEST_MESSAGE);
    let kept = stored(&long).await;
    assert!(kept.starts_with(&"ü".repeat(LONGEST_MESSAGE / 2)));
    assert!(kept.ends_with(&format!(" ... ({LONGEST_MESSAGE} more bytes)")), "{}", &kept[kept.len() - 40..]);
}

#[tokio::test]
async fn returned_jobs_keep_their_attempts_and_their_place() {
    let bench = Bench::new().await;
    let job = bench.claimed("w").await;
    let before = bench.text("select run_at from graphile_worker._private_jobs").await;
    let back = [ClaimedJob::of(&job)];
    assert_eq!(bench.session.return_jobs("w", &back).await.unwrap(), [job.id]);
    assert_eq!(bench.text("select run_at from graphile_worker._private_jobs").await, before);
    assert_eq!(bench.queue_owner().await, "");
    let again = bench.session.get_jobs("v", &bench.task, 1, Conditions::default()).await.unwrap().remove(0);
    assert!(again.locked_at > job.locked_at);
    assert_eq!(again, Job { locked_at: again.locked_at, ..job });
}

#[tokio::test]
async fn a_batch_touches_exactly_its_jobs() {
    let bench = Bench::new().await;
    let names = ["a", "b", "c", "-", "-", "-"];
    let jobs: Vec<NewJob> = names
        .iter()
        .map(|name| NewJob { queue_name: (*name != "-").then(|| (*name).to_owned()), ..NewJob::new("t") })
        .collect();
    bench.session.add_jobs(&jobs).await.unwrap();
    let claimed = bench.session.get_jobs("w", &bench.task, 10, Conditions::default()).await.unwrap();
    let pick = |place: usize| ClaimedJob::of(&claimed[place]);
    let mut done = bench.session.complete_jobs("w", &[pick(0), pick(3)]).await.unwrap();
    done.sort_unstable();
    assert_eq!(done, [claimed[0].id, claimed[3].id]);
    let failures = [failed(&claimed[1], "one", false), failed(&claimed[4], "two", true)];
    assert_eq!(bench.session.fail_jobs("w", &failures).await.unwrap().len(), 2);
    let left = "select string_agg(concat_ws(':', id, locked_by, last_error, attempts), ' ' order by id) from graphile_worker._private_jobs";
    let expected =
        format!("{}:one:1 {}:w:1 {}:two:25 {}:w:1", claimed[1].id, claimed[2].id, claimed[4].id, claimed[5].id);
    assert_eq!(bench.text(left).await, expected);
    let queues = "select string_agg(queue_name || coalesce(locked_by, '-'), ' ' order by queue_name) from graphile_worker._private_job_queues";
    assert_eq!(bench.text(queues).await, "a- b- cw");
}

#[tokio::test]
async fn locks_of_lost_owners_can_be_taken_away() {
    let bench = Bench::new().await;
    let job = bench.claimed("lost").await;
    bench.session.force_unlock(&["lost", "nobody"]).await.unwrap();
    let again = bench.session.get_jobs("w", &bench.task, 1, Conditions::default()).await.unwrap().remove(0);
    assert_eq!((again.id, again.attempts), (job.id, 2));
    let waited = Duration::from_secs(1);
    assert!(again.run_at <= SystemTime::now() + waited);
}
