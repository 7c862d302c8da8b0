//! Many jobs, and large ones: nothing is left out in silence, and the memory does not grow with their number.

use std::{ffi::OsStr, process::Output};

use serde_json::{Value, json};

use super::{jobs, json_of, said};
use crate::harness::{postgres::TestDatabase, program::Taskbay};

/// Jobs with payloads of 240 MB in all, which are small in the database.
async fn large_jobs() -> TestDatabase {
    let database = TestDatabase::installed().await;
    let add = "select graphile_worker.add_job('large', json_build_object('pad', repeat('x', 30000)))
               from generate_series(1, 8000)";
    database.execute(add).await;
    database
}

/// Calls `taskbay jobs` with room for 128 MB of data, and gives the end of what it prints.
fn in_little_memory(database: &TestDatabase, args: &[&str]) -> Output {
    let script = "ulimit -d 131072; \"$@\" | tail -c 300; exit ${PIPESTATUS[0]}";
    Taskbay::command("jobs")
        .args(args)
        .env("DATABASE_URL", database.url())
        .below("bash", &["-c", script, "bash"].map(OsStr::new))
        .output()
}

#[tokio::test]
async fn lists_and_changes_of_many_large_jobs_fit_into_little_memory() {
    let database = large_jobs().await;
    let end = said(&in_little_memory(&database, &["list", "--all", "--json"]), 0);
    assert!(end.ends_with("\"state\":\"ready\"}\n]\n"), "{end}");
    let end = said(&in_little_memory(&database, &["list", "--all"]), 0);
    assert!(end.trim_end().ends_with("xxx..."), "{end}");
    let end = said(&in_little_memory(&database, &["fail", "--task", "large", "--json", "--yes"]), 0);
    assert!(end.ends_with("], \"left_alone\": []}\n"), "{end}");
    assert_eq!(said(&in_little_memory(&database, &["retry", "--failed", "--yes"]), 0), "retried 8000 jobs\n");
    assert_eq!(said(&in_little_memory(&database, &["remove", "--task", "large", "--yes"]), 0), "removed 8000 jobs\n");
    assert!(database.jobs().await.is_empty());
}

#[tokio::test]
async fn a_list_that_was_cut_says_so_on_standard_error() {
    let database = TestDatabase::installed().await;
    database.execute("select graphile_worker.add_job('t') from generate_series(1, 1100)").await;
    for args in [&["list"][..], &["list", "--json"]] {
        let cut = jobs(&database, args);
        assert_eq!(cut.status.code(), Some(0));
        let complaint = String::from_utf8_lossy(&cut.stderr).into_owned();
        assert!(complaint.contains("more than these 50") && complaint.contains("--all"), "{complaint:?}");
        assert!(
            !String::from_utf8_lossy(&cut.stdout).contains("more than"),
            "what was asked for has a stream of its own"
        );
    }
    assert_eq!(json_of(&jobs(&database, &["list", "--json"])).as_array().map(Vec::len), Some(50));
    let all = jobs(&database, &["list", "--json", "--all", "--sort", "newest"]);
    assert!(all.stderr.is_empty());
    let all = json_of(&all);
    let ids: Vec<i64> = all.as_array().unwrap().iter().filter_map(|job| job["id"].as_i64()).collect();
    assert!(ids.len() == 1100 && ids.is_sorted_by(|one, next| one > next));
    let lines = said(&jobs(&database, &["list", "--all"]), 0);
    assert_eq!(lines.lines().filter(|line| line.contains("ready")).count(), 1100);
    let exactly = jobs(&database, &["list", "--limit", "1100"]);
    assert!(exactly.status.success() && exactly.stderr.is_empty());
}

/// Failing jobs stay among those that are meant, and others are added meanwhile: each is changed once, and it ends.
#[tokio::test]
async fn a_change_of_many_jobs_ends_and_tells_their_number() {
    let database = TestDatabase::installed().await;
    database.execute("select graphile_worker.add_job('t') from generate_series(1, 2500)").await;
    let answer = json_of(&jobs(&database, &["fail", "--task", "t", "--json", "--yes"]));
    assert_eq!(answer["failed"].as_array().map(Vec::len), Some(2500));
    assert_eq!(said(&jobs(&database, &["fail", "--task", "t", "--yes"]), 0), "failed 2500 jobs\n");
    database
        .execute("update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w' where id % 50 = 0")
        .await;
    let text = said(&jobs(&database, &["remove", "--task", "t", "--yes"]), 0);
    assert!(text.starts_with("removed 2450 jobs\n") && text.ends_with("30 more were left alone\n"), "{text}");
    assert_eq!(text.lines().count(), 22, "{text}");
}

/// So many rows that `stats` and `workers` read a part of the table, each on a page of its own.
async fn large_table() -> TestDatabase {
    let database = TestDatabase::installed().await;
    let add = "alter table graphile_worker._private_jobs set (fillfactor = 10);
               select graphile_worker.add_job('t', json_build_object('pad', repeat('x', 700))) from generate_series(1, 9000);
               select graphile_worker.add_job('rare', queue_name => 'q');
               update graphile_worker._private_jobs set locked_at = now(), locked_by = 'pool-1', attempts = 1
                 where id = (select max(id) from graphile_worker._private_jobs);
               update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'pool-1'";
    database.execute(add).await;
    database
}

#[tokio::test]
async fn numbers_of_a_large_table_are_estimated_and_say_so() {
    let database = large_table().await;
    let about = jobs(&database, &["stats", "--json"]);
    let complaint = String::from_utf8_lossy(&about.stderr).into_owned();
    assert!(complaint.contains("estimated from") && complaint.contains("--exact"), "{complaint:?}");
    let about = json_of(&about);
    let sampled = about["sampled"].as_f64().expect("a part of the table");
    assert!(sampled > 0.3 && sampled < 0.5, "{sampled}");
    let total = about["total"]["total"].as_i64().unwrap();
    assert!((8_000..10_000).contains(&total), "{total} of 9001");

    let text = String::from_utf8(jobs(&database, &["stats"]).stdout).unwrap();
    let row = text.lines().find(|line| line.starts_with('t')).expect("the task's row");
    assert!(row.contains('~') && row.contains("<7"), "{text}");

    let exact = json_of(&jobs(&database, &["stats", "--json", "--exact"]));
    assert_eq!((&exact["total"]["total"], &exact["sampled"]), (&json!(9_001), &Value::Null));
    assert_eq!(exact["tasks"]["rare"]["running"], 1);

    let workers = jobs(&database, &["workers", "--json"]);
    assert!(String::from_utf8_lossy(&workers.stderr).contains("a worker that holds few jobs may be missing"));
    let workers = json_of(&workers);
    assert_eq!((&workers[0]["worker"], &workers[0]["queues"]), (&json!("pool-1"), &json!(1)), "queues are all read");
    let exact = jobs(&database, &["workers", "--json", "--exact"]);
    assert!(exact.stderr.is_empty());
    assert_eq!(json_of(&exact)[0]["jobs"], 1);
}
