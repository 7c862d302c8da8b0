//! Jobs in a test's database: added as an application adds them, and looked at as an administrator does.

use serde_json::Value;
use taskbay::migrate;
use tokio_postgres::types::ToSql;

use super::{
    postgres::TestDatabase,
    wait::{until, until_true},
};

/// A job as it is stored.
#[derive(Debug, Clone)]
pub struct JobRow {
    pub id: i64,
    pub task: String,
    pub payload: String,
    pub queue: Option<String>,
    pub key: Option<String>,
    pub priority: i16,
    pub attempts: i16,
    pub max_attempts: i16,
    pub last_error: Option<String>,
    pub locked_by: Option<String>,
}

impl TestDatabase {
    /// A database with the schema in it.
    pub async fn installed() -> Self {
        let database = Self::new().await;
        migrate::prepare(&database.database()).await.expect("install the schema");
        database
    }

    /// Adds a job and gives its id.
    pub async fn add(&self, task: &str, payload: Value) -> i64 {
        self.id_of("select (graphile_worker.add_job($1, $2)).id", &[&task, &payload]).await
    }

    pub async fn add_to_queue(&self, task: &str, payload: Value, queue: &str) -> i64 {
        self.id_of("select (graphile_worker.add_job($1, $2, $3)).id", &[&task, &payload, &queue]).await
    }

    /// Adds jobs with one statement, so that they are due at the same moment.
    pub async fn add_many(&self, task: &str, count: i32) {
        let sql = "select count(*) from graphile_worker.add_jobs(array(
                     select row($1::text, '{}', null, now(), 25, null, 0, null)::graphile_worker.job_spec
                     from generate_series(1, $2::int)))";
        self.id_of(sql, &[&task, &count]).await;
    }

    pub async fn add_in_an_hour(&self, task: &str, payload: Value) -> i64 {
        let sql = "select (graphile_worker.add_job($1, $2, run_at := now() + interval '1 hour')).id";
        self.id_of(sql, &[&task, &payload]).await
    }

    /// The number that a statement gives.
    pub async fn id_of(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> i64 {
        self.client().await.query_one(sql, parameters).await.expect(sql).get(0)
    }

    pub async fn execute(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.expect(sql);
    }

    /// All jobs, by their ids.
    pub async fn jobs(&self) -> Vec<JobRow> {
        let sql =
            "select job.id, task.identifier, job.payload::text, queue.queue_name, job.key, job.priority, job.attempts,
                          job.max_attempts, job.last_error, job.locked_by
                   from graphile_worker._private_jobs job
                   join graphile_worker._private_tasks task on task.id = job.task_id
                   left join graphile_worker._private_job_queues queue on queue.id = job.job_queue_id
                   order by job.id";
        let rows = self.client().await.query(sql, &[]).await.expect("read the jobs");
        rows.iter()
            .map(|row| JobRow {
                id: row.get(0),
                task: row.get(1),
                payload: row.get(2),
                queue: row.get(3),
                key: row.get(4),
                priority: row.get(5),
                attempts: row.get(6),
                max_attempts: row.get(7),
                last_error: row.get(8),
                locked_by: row.get(9),
            })
            .collect()
    }

    #[track_caller]
    pub fn job(&self, id: i64) -> impl Future<Output = JobRow> {
        let place = std::panic::Location::caller();
        async move {
            let found = self.jobs().await.into_iter().find(|job| job.id == id);
            found.unwrap_or_else(|| panic!("job {id} is gone, looked for at {place}"))
        }
    }

    pub async fn only_job(&self) -> JobRow {
        let mut jobs = self.jobs().await;
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs.remove(0)
    }

    /// How long until a job may run again.
    pub async fn seconds_until_run(&self, id: i64) -> f64 {
        let sql = "select extract(epoch from run_at - now())::float8 from graphile_worker._private_jobs where id = $1";
        self.client().await.query_one(sql, &[&id]).await.expect("read a job").get(0)
    }

    pub async fn locked_queues(&self) -> i64 {
        self.id_of("select count(*) from graphile_worker._private_job_queues where locked_by is not null", &[]).await
    }

    /// Waits until every job is done.
    pub async fn wait_until_no_jobs(&self) {
        self.wait_until_jobs(0).await;
    }

    /// Waits until so many jobs are left, or fewer.
    pub async fn wait_until_jobs(&self, wanted: i64) {
        let client = self.client().await;
        let sql = "select count(*), count(locked_at), min(id) from graphile_worker.jobs";
        until(format_args!("{wanted} jobs are left"), async || {
            let row = client.query_one(sql, &[]).await.expect("count the jobs");
            let (left, locked, first): (i64, i64, Option<i64>) = (row.get(0), row.get(1), row.get(2));
            if left <= wanted { Ok(()) } else { Err((left, format!("{locked} locked, first job {first:?}"))) }
        })
        .await;
    }

    /// Waits until somebody waits for the lock of another transaction.
    pub async fn wait_until_blocked(&self) {
        let sql =
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
        until_true("somebody waits for a lock", async || self.id_of(sql, &[]).await > 0).await;
    }

    /// Ends all other connections to the database, and waits until they have ended.
    pub async fn terminate_others(&self) {
        let client = self.client().await;
        // Not in the condition: there it would be asked of all connections to the server.
        let sql = "select coalesce(array_agg(pid), '{}'), count(pg_terminate_backend(pid)) from pg_stat_activity
                   where datname = current_database() and pid <> pg_backend_pid()";
        let pids: Vec<i32> = client.query_one(sql, &[]).await.expect("end the other connections").get(0);
        let sql = "select count(*) from pg_stat_activity where pid = any ($1)";
        until_true("the other connections end", async || self.id_of(sql, &[&pids]).await == 0).await;
    }

    /// Waits until nothing is under way on other connections: what a host that was killed had sent is still carried out.
    pub async fn wait_until_others_rest(&self) {
        let sql = "select count(*) from pg_stat_activity
                   where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'";
        until_true("nothing is under way on other connections", async || self.id_of(sql, &[]).await == 0).await;
    }
}
