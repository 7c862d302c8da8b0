//! Time limits that were set for other programs of the same role do not end the host's statements, transactions or sessions.

use serde_json::json;

use taskbay::queue::{Conditions, Database, DatabaseSettings, NewJob};

use super::pooler::Pooler;
use crate::harness::{
    budget::{self, Beyond, role_with_budget},
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay},
    wait::until_true,
};

/// So many due jobs of a task that no host here has are walked in more than 15 ms.
const FOREIGN: &str = "
insert into graphile_worker._private_tasks (identifier) values ('foreign');
insert into graphile_worker._private_jobs (task_id, run_at)
  select 1, now() - interval '1 day' + i * interval '1 millisecond' from generate_series(1, 200000) as i";

#[tokio::test(flavor = "multi_thread")]
async fn a_short_statement_timeout_does_not_keep_a_host_from_jobs_behind_many_others() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    database.execute(FOREIGN).await;
    let limits =
        "-c%20statement_timeout%3D15ms%20-c%20lock_timeout%3D15ms%20-c%20idle_in_transaction_session_timeout%3D15ms";
    let url = format!("{}?options={limits}", database.url());
    for lane in ["marked", "express"] {
        let host = Taskbay::run(&url, folder.path()).args(["--claim", lane]).spawn();
        database.add_many("nothing", 100).await;
        host.nth_event(&["job_done"], 100).await;
        host.stop().await;
    }
}

/// Somebody locks the table of jobs for longer than the limits of a second, and the host waits for it as if there were none.
async fn outlasts_a_lock(database: &TestDatabase, host: &Running) {
    let client = database.client().await;
    client
        .batch_execute("begin; lock table graphile_worker._private_jobs in access exclusive mode")
        .await
        .expect("lock");
    let patient = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock' and now() - query_start > '2 s'";
    until_true("a statement waits for longer than its limit", async || database.id_of(patient, &[]).await > 0).await;
    client.batch_execute("commit").await.expect("let the table go");
    database.add_many("nothing", 20).await;
    host.nth_event(&["job_done"], 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_limit_ends_a_statement_that_waits_for_a_lock() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let url = format!("{}?options=-c%20statement_timeout%3D1s%20-c%20lock_timeout%3D1s", database.url());
    let host = Taskbay::run(&url, folder.path()).args(["--poll-interval", "50ms"]).spawn();
    host.event("worker_ready", |_| true).await;
    outlasts_a_lock(&database, &host).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_limit_ends_a_statement_behind_a_pooler_either() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let pooler = Pooler::start_with(&database, "set statement_timeout = '1s'; set lock_timeout = '1s'").await;
    let host = Taskbay::run(&pooler.url(&database), folder.path())
        .args(["--no-prepared-statements", "--no-listen", "--no-liveness", "--poll-interval", "50ms"])
        .spawn();
    host.event("worker_ready", |_| true).await;
    outlasts_a_lock(&database, &host).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_timeout_does_not_cut_a_host_off_that_has_nothing_to_do() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let url = format!("{}?options=-c%20idle_session_timeout%3D1s", database.url());
    let host = Taskbay::run(&url, folder.path()).args(["--poll-interval", "1h"]).spawn();
    host.event("listening", |_| true).await;
    // For so long, nothing is said on any connection but that of the job.
    database.add("sleep", json!({"ms": 4000})).await;
    host.event("job_done", |_| true).await;
    let next = database.add("nothing", json!({})).await;
    host.event("job_done", |line| line["job"] == next).await;
    assert_eq!(host.events("listening").len(), 1, "it had to connect again");
    assert_eq!(host.events("database_trouble").len(), 0, "{:?}", host.events("database_trouble"));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_ends_long_statements_does_not_keep_claims_from_a_job_behind_many_others() {
    let database = TestDatabase::installed().await;
    let config = role_with_budget(&database, 3_000, Beyond::Endless).await;
    database.execute(FOREIGN).await;
    let job = database.database().add_job(&NewJob::new("nothing")).await.unwrap();
    let pooler = Pooler::start_as(&config, "select 1", "query_timeout = 2\n").await;
    let mut settings = DatabaseSettings::new(pooler.config(&database), "graphile_worker");
    settings.prepared_statements = false;
    let hosts = Database::new(settings).unwrap();
    let session = hosts.session().await.unwrap();
    let tasks = session.task_ids(&["nothing"]).await.unwrap();
    drop(session);
    let mut cut = 0;
    let claimed = loop {
        let session = hosts.session().await.unwrap();
        match session.get_jobs("w", &tasks, 10, Conditions::default()).await {
            Ok(jobs) => break jobs,
            Err(error) => {
                assert!(error.connection_lost(), "{error}");
                cut += 1;
                // Two claims and a page, and as many of which it is noticed late that the connection has ended.
                assert!(cut <= 8, "each claim is cut off");
            }
        }
    };
    assert_eq!(claimed.iter().map(|claimed| claimed.id).collect::<Vec<_>>(), [job.id]);
    drop((hosts, pooler));
    database.terminate_others().await;
    budget::remove(&database).await;
}
