//! Jobs are found by when they were added and when they failed, in the words that people use.

use serde_json::json;

use super::{found, jobs, said};
use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_failed_since_a_time_are_found_however_they_failed() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let retrying = database.add("fail", json!({"message": "no luck"})).await;
    let discarded = database.add("discard", json!({"message": "pointless"})).await;
    let last = database
        .id_of("select (graphile_worker.add_job('fail', '{\"message\": \"x\"}', max_attempts := 1)).id", &[])
        .await;
    let long_ago = database.add("fail", json!({"message": "no luck"})).await;
    let done = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn().ended().await;
    assert!(done.success());
    let by_hand = database.add_in_an_hour("t", json!({})).await;
    said(&jobs(&database, &["fail", &by_hand.to_string()]), 0);
    let untried = database.add_in_an_hour("t", json!({})).await;
    // All were added long ago, and one failed then.
    database
        .execute(&format!(
            "update graphile_worker._private_jobs set created_at = now() - interval '9 days',
               updated_at = case when id = {by_hand} then updated_at else now() - interval '9 days' end;
             update graphile_worker._private_jobs set run_at = run_at - interval '8 days' where id = {long_ago}"
        ))
        .await;

    assert_eq!(found(&database, &["--failed-since", "1h"]), [retrying, discarded, last, by_hand]);
    assert_eq!(found(&database, &["--failed-since", "yesterday", "--failed"]), [discarded, last, by_hand]);
    assert_eq!(found(&database, &["--failed-before", "7d"]), [long_ago]);
    assert_eq!(found(&database, &["--failed-since", "8d", "--failed-before", "7d"]), [0; 0]);
    assert_eq!(found(&database, &["--added-before", "7d"]).len(), 6);
    assert_eq!(found(&database, &["--state", "scheduled"]), [untried]);
    let text = said(&jobs(&database, &["retry", "--failed", "--failed-since", "yesterday", "--yes"]), 0);
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[tokio::test]
async fn times_are_days_or_moments_in_the_zone_of_the_machine() {
    let database = TestDatabase::installed().await;
    let mut ids = Vec::new();
    for added in ["2026-03-01 03:59Z", "2026-03-01 04:01Z", "2026-03-02 04:01Z"] {
        let id = database.add("t", json!({})).await;
        database
            .execute(&format!("update graphile_worker._private_jobs set created_at = '{added}' where id = {id}"))
            .await;
        ids.push(id);
    }
    let in_zone = |args: &[&str]| {
        let list = [&["list", "--json"], args].concat();
        let output =
            Taskbay::command("jobs").args(list).env("DATABASE_URL", database.url()).env("TZ", "America/La_Paz");
        super::ids_of(&output.output())
    };
    // Four hours behind UTC, in summer and winter.
    assert_eq!(in_zone(&["--added-since", "2026-03-01"]), ids[1..]);
    assert_eq!(in_zone(&["--added-since", "2026-03-01", "--added-before", "2026-03-02"]), ids[1..2]);
    assert_eq!(in_zone(&["--added-before", "2026-03-01 00:00"]), ids[..1]);
    assert_eq!(in_zone(&["--added-before", "2026-03-01T04:00:00Z"]), ids[..1]);
    assert_eq!(in_zone(&["--after", "2026-03-02T00:00-04:00"]), ids[2..], "the names from before go on");
    assert_eq!(in_zone(&["--older-than", "1d ago"]), ids);
    assert_eq!(in_zone(&["--newer-than", "yesterday"]), [0; 0]);
    let refused = said(&jobs(&database, &["list", "--failed-since", "last week"]), 2);
    assert!(refused.contains("a day such as 2026-01-31 or yesterday"), "{refused}");
}
