//! What a claim reads, whatever stands before the jobs that it finds.
//!
//! What is counted are rows and index entries that the server has read, not time. Each test has a long obstacle in front and
//! many claims; a walk past the obstacle now and then is allowed, one for each claim is not.

use std::time::Duration;

use taskbay::queue::{ClaimedJob, Conditions, Database, Job, Session, TaskIds};
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::harness::postgres::TestDatabase;

/// How many rows stand before what can be claimed.
const OBSTACLE: i64 = 50_000;
/// How often is claimed.
const CLAIMS: usize = 40;

/// A database with two tasks, of which the jobs of the first are claimed.
struct Site {
    test: TestDatabase,
    /// Looks at the counters.
    observer: Client,
}

impl Site {
    async fn new() -> Self {
        let test = TestDatabase::installed().await;
        // Nobody else reads or cleans up while it is counted.
        test.execute("alter table graphile_worker._private_jobs set (autovacuum_enabled = false)").await;
        test.execute("insert into graphile_worker._private_tasks (identifier) values ('mine'), ('other')").await;
        let observer = test.client().await;
        Self { test, observer }
    }

    /// Runs statements about jobs, `$jobs` and `$queues`, on a connection of its own.
    async fn fill(&self, statements: &str) {
        let text = statements
            .replace("$jobs", "graphile_worker._private_jobs")
            .replace("$queues", "graphile_worker._private_job_queues")
            .replace("$n", &OBSTACLE.to_string());
        for statement in text.split(';') {
            self.test.execute(statement).await;
        }
    }

    async fn read_until_now(&self) -> i64 {
        // Connections hand their counters in when they end.
        let others = "select count(*) from pg_stat_activity
                      where datname = current_database() and pid <> pg_backend_pid()
                        and application_name <> 'pin' and backend_type = 'client backend'";
        let gone = async { while self.observer.query_one(others, &[]).await.unwrap().get::<_, i64>(0) > 0 {} };
        timeout(Duration::from_secs(60), gone).await.expect("the other connections end");
        let sql = "select (sum(idx_tup_read) + (select sum(seq_tup_read) from pg_stat_user_tables))::int8
                   from pg_stat_user_indexes";
        self.observer.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// How many rows `work` reads.
    async fn count(&self, work: impl AsyncFnOnce(&Claimer)) -> i64 {
        let before = self.read_until_now().await;
        let claimer = Claimer::new(self).await;
        work(&claimer).await;
        drop(claimer);
        self.read_until_now().await - before
    }

    /// A transaction that keeps every row which is deleted from now on from being cleaned up.
    async fn pin(&self) -> Client {
        let mut config = self.test.config();
        config.application_name("pin");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("begin isolation level repeatable read; create temp table pin (n int)").await.unwrap();
        client
    }
}

struct Claimer {
    session: Session,
    task: TaskIds,
    _database: Database,
}

impl Claimer {
    async fn new(site: &Site) -> Self {
        let database = site.test.database();
        let session = database.session().await.unwrap();
        let task = session.task_ids(&["mine"]).await.unwrap();
        Self { session, task, _database: database }
    }

    async fn claim(&self, limit: usize, conditions: Conditions<'_>) -> Vec<Job> {
        self.session.get_jobs("w", &self.task, limit, conditions).await.unwrap()
    }

    async fn complete(&self, jobs: &[Job]) {
        let jobs: Vec<ClaimedJob> = jobs.iter().map(ClaimedJob::of).collect();
        self.session.complete_jobs("w", &jobs).await.unwrap();
    }

    /// Claims and completes `limit` jobs, as often as is usual here.
    async fn work(&self, limit: usize, conditions: Conditions<'_>) {
        for _ in 0..CLAIMS {
            let jobs = self.claim(limit, conditions).await;
            assert_eq!(jobs.len(), limit);
            self.complete(&jobs).await;
        }
    }
}

/// Far less than one walk past the obstacle for each claim.
#[track_caller]
fn assert_flat(read: i64) {
    let walks = read as f64 / OBSTACLE as f64;
    assert!(walks < CLAIMS as f64 / 2.0, "{read} rows were read, as in {walks:.1} walks, for {CLAIMS} claims");
}

const MY_JOBS: &str = "insert into $jobs (task_id, run_at) select 1, now() - (1000 - i) * interval '1 millisecond'
                       from generate_series(1, 1000) as i";
/// When the rows of the obstacle are due.
const EARLIER: &str = "now() - interval '1 hour' + i * interval '1 millisecond' from generate_series(1, $n) as i";

#[tokio::test]
async fn jobs_of_other_tasks() {
    let site = Site::new().await;
    site.fill(&format!("insert into $jobs (task_id, run_at) select 2, {EARLIER}; {MY_JOBS}")).await;
    assert_flat(site.count(async |claimer| claimer.work(5, Conditions::default()).await).await);
}

#[tokio::test]
async fn jobs_with_a_forbidden_flag() {
    let site = Site::new().await;
    let obstacle = format!(r#"insert into $jobs (flags, task_id, run_at) select '{{"f": true}}', 1, {EARLIER}"#);
    site.fill(&format!("{obstacle}; {MY_JOBS}")).await;
    let flags = ["f".to_owned()];
    let conditions = Conditions { forbidden_flags: &flags, now: None, left_out: &[] };
    assert_flat(site.count(async |claimer| claimer.work(5, conditions).await).await);
}

#[tokio::test]
async fn jobs_of_busy_queues() {
    let site = Site::new().await;
    let queues = "insert into $queues (queue_name, locked_at, locked_by) values ('a', now(), 'x'), ('b', now(), 'x')";
    let obstacle = format!("insert into $jobs (task_id, job_queue_id, run_at) select 1, 1 + i % 2, {EARLIER}");
    site.fill(&format!("{queues}; {obstacle}; {MY_JOBS}")).await;
    assert_flat(site.count(async |claimer| claimer.work(5, Conditions::default()).await).await);
}

#[tokio::test]
async fn rows_that_are_gone_and_cannot_be_cleaned_up() {
    let site = Site::new().await;
    let _pin = site.pin().await;
    site.fill(&format!("insert into $jobs (task_id, run_at) select 1, {EARLIER}; delete from $jobs; {MY_JOBS}")).await;
    assert_flat(site.count(async |claimer| claimer.work(5, Conditions::default()).await).await);
}

/// No place in the index is among jobs that are due at the same moment.
#[tokio::test]
async fn rows_that_are_gone_among_others_of_the_same_moment() {
    let site = Site::new().await;
    let _pin = site.pin().await;
    let all = "insert into $jobs (task_id) select 1 from generate_series(1, $n + 5000)";
    site.fill(&format!("{all}; delete from $jobs where id <= $n")).await;
    assert_flat(site.count(async |claimer| claimer.work(100, Conditions::default()).await).await);
}

/// The same where there are queues: then jobs in queues are looked for among them.
#[tokio::test]
async fn rows_that_are_gone_among_others_of_the_same_moment_beside_queues() {
    let site = Site::new().await;
    let _pin = site.pin().await;
    let all = "insert into $jobs (task_id) select 1 from generate_series(1, $n + 5000)";
    site.fill(&format!("insert into $queues (queue_name) values ('q'); {all}; delete from $jobs where id <= $n")).await;
    assert_flat(site.count(async |claimer| claimer.work(100, Conditions::default()).await).await);
}

#[tokio::test]
async fn jobs_whose_time_has_not_come() {
    let site = Site::new().await;
    let later = "now() + interval '1 hour' + i * interval '1 millisecond' from generate_series(1, $n) as i";
    let obstacle = format!("insert into $jobs (priority, task_id, run_at) select (i % 3) - 1, 1, {later}");
    site.fill(&format!("{obstacle}; insert into $queues (queue_name) values ('q'); {MY_JOBS}")).await;
    let read = site.count(async |claimer| {
        claimer.work(5, Conditions::default()).await;
        while !claimer.claim(100, Conditions::default()).await.is_empty() {}
        for _ in 0..CLAIMS {
            assert!(claimer.claim(100, Conditions::default()).await.is_empty());
        }
    });
    let read = read.await;
    // The first claim does not know yet which priorities there are.
    assert!(read < 2 * OBSTACLE, "{read} rows were read");
}

/// The queue in front has one job that takes long; those behind it are short.
#[tokio::test]
async fn a_long_backlog_of_a_slow_queue_before_that_of_a_fast_one() {
    let site = Site::new().await;
    let queues =
        "insert into $queues (queue_name, locked_at, locked_by) values ('slow', now(), 'x'), ('fast', null, null)";
    let slow = format!("insert into $jobs (job_queue_id, task_id, run_at) select 1, 1, {EARLIER}");
    let fast = MY_JOBS.replace("(task_id", "(job_queue_id, task_id").replace("select 1", "select 2, 1");
    site.fill(&format!("{queues}; {slow}; {fast}; vacuum $jobs")).await;
    let read = site.count(async |claimer| {
        let mut ids = Vec::new();
        for _ in 0..CLAIMS {
            let jobs = claimer.claim(10, Conditions::default()).await;
            assert_eq!(jobs.len(), 1, "the queue gives one at a time");
            ids.push(jobs[0].id);
            claimer.complete(&jobs).await;
        }
        assert!(ids.is_sorted() && ids[0] == OBSTACLE + 1, "in their order: {ids:?}");
    });
    assert_flat(read.await);
}

/// The server has planned its statements while the table was all but empty, when reading all of it was the fastest.
#[tokio::test]
async fn a_table_that_has_grown_since_its_statements_were_planned() {
    let site = Site::new().await;
    site.fill("insert into $jobs (task_id) select 1 from generate_series(1, 20); vacuum analyze $jobs").await;
    let read = site.count(async |claimer| {
        // More often than Postgres plans a statement anew.
        for _ in 0..10 {
            let jobs = claimer.claim(2, Conditions::default()).await;
            claimer.complete(&jobs).await;
        }
        let filled = async {
            site.fill(&format!("insert into $jobs (task_id, run_at) select 1, {EARLIER}")).await;
        };
        filled.await;
        claimer.work(5, Conditions::default()).await;
    });
    assert_flat(read.await);
}

/// The same after a table that was large before was emptied, which has the server plan its statements anew as well.
#[tokio::test]
async fn a_table_that_has_grown_again_since_it_was_emptied() {
    let site = Site::new().await;
    let few = "insert into $jobs (task_id) select 1 from generate_series(1, 20); vacuum analyze $jobs";
    site.fill(&format!("insert into $jobs (task_id, run_at) select 1, {EARLIER}")).await;
    let read = site.count(async |claimer| {
        claimer.work(2, Conditions::default()).await;
        site.fill(&format!("truncate $jobs; {few}")).await;
        // More often than Postgres plans a statement anew.
        for _ in 0..10 {
            let jobs = claimer.claim(2, Conditions::default()).await;
            claimer.complete(&jobs).await;
        }
        site.fill(&format!("insert into $jobs (task_id, run_at) select 1, {EARLIER}")).await;
        claimer.work(5, Conditions::default()).await;
    });
    assert_flat(read.await);
}
