//! What goes wrong in graphile-worker and must not here, where no other test asserts it already: `docs/parity.md` lists all.

use serde_json::json;
use taskbay::queue::NewJob;
use tokio_postgres::NoTls;

use crate::harness::{
    ledger::Ledger,
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

/// Upstream's worker dies of an unhandled rejection, or stops with status 0, and the job stays locked for 4 hours.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_lost_while_a_job_runs_gets_the_result_when_it_is_back() {
    let (database, folder, ledger) = (TestDatabase::installed().await, tasks_folder(), Ledger::new());
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path()).ledger(&ledger).spawn();
    host.event("listening", |_| true).await;
    let (config, name) = (database.config(), database.config().get_dbname().expect("a name").to_owned());
    let mut other = config.clone();
    let (admin, connection) = other.dbname("postgres").connect(NoTls).await.expect("connect to another database");
    tokio::spawn(connection);

    let id = database.add("echo", json!({"n": 1, "announce": true, "sleep_ms": 300})).await;
    let queued = database.add_to_queue("echo", json!({"n": 2, "sleep_ms": 300}), "q").await;
    host.event("job_started", |line| line["job"] == queued).await;
    admin.batch_execute(&format!("alter database {name} allow_connections false")).await.expect("close the database");
    let kick = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
    admin.batch_execute(&kick).await.expect("end all connections");
    // Both have run, and nobody can be told.
    ledger.wait_for(3).await;
    host.event("database_trouble", |line| line["message"].as_str().is_some_and(|text| text.contains("results"))).await;
    admin.batch_execute(&format!("alter database {name} allow_connections true")).await.expect("open the database");

    for job in [id, queued] {
        host.event("job_done", |line| line["job"] == job).await;
    }
    database.wait_until_no_jobs().await;
    assert_eq!(database.locked_queues().await, 0);
    let later = database.add("echo", json!({"n": 3})).await;
    host.event("job_done", |line| line["job"] == later).await;
    assert_eq!(ledger.entries().len(), 4, "nothing was run twice");
    host.stop().await;
}

/// Upstream answers such a call with a row of nulls, and the job is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_key_is_claimed_in_the_same_moment_is_added_all_the_same() {
    let database = TestDatabase::installed().await;
    let keyed = |n: usize| NewJob {
        job_key: Some("k".to_owned()),
        payload: Some(json!({"n": n}).to_string()),
        ..NewJob::new("theirs")
    };
    let session = database.database().session().await.expect("a session");
    let first = session.add_job(&keyed(1)).await.expect("add a job");
    let mut claimer = database.client().await;
    let claim = claimer.transaction().await.expect("begin");
    claim
        .batch_execute("update graphile_worker._private_jobs set locked_at = now(), locked_by = 'x', attempts = 1")
        .await
        .expect("claim it");
    let adding = tokio::spawn(async move { session.add_job(&keyed(2)).await });
    database.wait_until_blocked().await;
    claim.commit().await.expect("commit the claim");
    let second = adding.await.expect("no panic").expect("the job is added");
    assert_ne!(second.id, first.id);
    assert_eq!(second.payload, r#"{"n": 2}"#.replace(": ", ":"));
    let jobs = database.jobs().await;
    assert_eq!(jobs.iter().map(|job| job.key.as_deref()).collect::<Vec<_>>(), [None, Some("k")]);
    assert_eq!(jobs[0].attempts, 25, "the one that runs is not tried again");
}

/// Upstream ends with status 1 in a third of a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_yet_is_waited_for() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let id = database.add("nothing", json!({})).await;
    let (config, name) = (database.config(), database.config().get_dbname().expect("a name").to_owned());
    let mut other = config.clone();
    let (admin, connection) = other.dbname("postgres").connect(NoTls).await.expect("connect to another database");
    tokio::spawn(connection);
    admin.batch_execute(&format!("alter database {name} allow_connections false")).await.expect("close the database");
    let host = Taskbay::run(&database.url(), folder.path()).spawn();
    host.event("database_trouble", |line| line["message"].as_str().is_some_and(|text| text.contains(&name))).await;
    admin.batch_execute(&format!("alter database {name} allow_connections true")).await.expect("open the database");
    host.event("job_done", |line| line["job"] == id).await;
    host.stop().await;
}

/// For those whose supervisor starts it again anyway.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_yet_is_not_waited_for_where_that_is_not_wanted() {
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    // Port 1 is nobody's.
    let mut host = Taskbay::run("postgres://nobody@127.0.0.1:1/none", folder.path()).args(["--no-wait"]).spawn();
    assert_eq!(host.ended().await.code(), Some(1));
    assert!(host.events("database_trouble").is_empty(), "it did not try again");
}

/// Waiting for what will not come by itself would hide the mistake.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_exist_is_not_waited_for() {
    let (database, folder) = (TestDatabase::new().await, tasks_folder());
    let mut host = Taskbay::run(&format!("{}_not", database.url()), folder.path()).spawn();
    assert_eq!(host.ended().await.code(), Some(1));
}
