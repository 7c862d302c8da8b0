//! Statements that the server undoes for the sake of others are run again.

use std::time::Duration;

use taskbay::{migrate, queue::NewJob};

use super::*;
use crate::harness::{postgres::TestDatabase, wait::until_true};

/// Two transactions that update the same two rows in turn: one has to give way. Ours is the one that waits less long before it
/// looks for a deadlock, so it is ours that is undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_was_undone_for_a_deadlock_is_run_again() {
    let test = TestDatabase::installed().await;
    let url = format!("{}?options=-c%20deadlock_timeout%3D1s", test.url());
    let database = connect(&url, &[]).await.expect("connect");
    let session = database.session().await.expect("a session");
    session.add_jobs(&[NewJob::new("a"), NewJob::new("b")]).await.expect("add two jobs");
    let mut other = test.client().await;
    other.batch_execute("set deadlock_timeout = '1h'").await.expect("wait patiently");
    let transaction = other.transaction().await.expect("begin");
    let touch = "update graphile_worker._private_jobs set locked_at = now() - interval '5 hours' where id = ";
    test.execute(&format!("{touch}1; {touch}2")).await;
    transaction.batch_execute(&format!("{touch}2")).await.expect("the second row");
    // It locks the first row, then waits for the second.
    let resetting = tokio::spawn(async move { session.reset_locked().await });
    let waiting =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
    let waits = async || test.id_of(waiting, &[]).await > 0 || resetting.is_finished();
    until_true("it waits for the second row", waits).await;
    transaction.batch_execute(&format!("{touch}1")).await.expect("ours gives way");
    transaction.commit().await.expect("commit");
    let unlocked = tokio::time::timeout(Duration::from_secs(60), resetting).await.expect("in time").expect("no panic");
    assert_eq!(unlocked.expect("run again").jobs, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn serialization_failures_are_run_again() {
    let test = TestDatabase::new().await;
    migrate::prepare(&test.database()).await.expect("install the schema");
    let url = format!("{}?options=-c%20default_transaction_isolation%3Dserializable", test.url());
    let database = connect(&url, &[]).await.expect("connect");
    let mut adding = tokio::task::JoinSet::new();
    for worker in 0..6 {
        let session = database.session().await.expect("a session");
        adding.spawn(async move {
            for n in 0..10 {
                let job = NewJob { job_key: Some(format!("k{}", n % 3)), ..NewJob::new(format!("t{worker}")) };
                session.add_job(&job).await.expect("add a job");
            }
        });
    }
    while let Some(added) = adding.join_next().await {
        added.expect("each was added in the end");
    }
    assert_eq!(test.jobs().await.len(), 3);
}
