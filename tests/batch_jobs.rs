//! Jobs whose payload is an array: their items fail and are tried again one by one.

use serde_json::{Value, json};

use crate::harness::{
    jobs::JobRow,
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay},
};

/// Works the jobs that can run now, in the default way and in the host's process.
async fn work(database: &TestDatabase, how: &[&str]) -> Running {
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").args(how).spawn();
    assert!(host.ended().await.success());
    host
}

const BOTH: [&[&str]; 2] = [&[], &["--in-process"]];

/// What becomes of a job with this payload, and what was said.
async fn after(task: &str, payload: &str, how: &[&str]) -> (Vec<JobRow>, Running) {
    let database = TestDatabase::installed().await;
    let sql = "select (graphile_worker.add_job($1, $2::text::json)).id";
    database.id_of(sql, &[&task, &payload]).await;
    let host = work(&database, how).await;
    (database.jobs().await, host)
}

fn ok() -> Value {
    json!({})
}

#[tokio::test(flavor = "multi_thread")]
async fn arrays_that_are_added_under_one_key_become_one_job() {
    let database = TestDatabase::installed().await;
    for n in 1..=3 {
        let sql = "select (graphile_worker.add_job('batch', $1, job_key := 'k')).id";
        database.id_of(sql, &[&json!([{"n": n}])]).await;
    }
    let job = database.only_job().await;
    assert_eq!(serde_json::from_str::<Value>(&job.payload).unwrap(), json!([{"n": 1}, {"n": 2}, {"n": 3}]));
    assert_eq!((job.attempts, job.queue), (0, None));
    work(&database, &[]).await;
    assert!(database.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_without_a_failed_item_is_done() {
    for how in BOTH {
        for task in ["batch", "batch_plain", "batch_silent"] {
            let (left, host) = after(task, &json!([ok(), ok()]).to_string(), how).await;
            assert!(left.is_empty(), "{task}: {left:?}");
            assert_eq!(host.events("job_done").len(), 1);
        }
        assert!(after("batch", "[]", how).await.0.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fails_as_a_whole_keeps_its_payload() {
    let payload = r#"[{"n":1}, {"n": 2},{"n":3}]"#;
    for how in BOTH {
        let (left, _) = after("batch_whole", payload, how).await;
        let [job] = &left[..] else { panic!("{left:?}") };
        assert_eq!(
            (job.payload.as_str(), job.attempts, job.last_error.as_deref()),
            (payload, 1, Some("no connection"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_failed_items_are_tried_again_byte_for_byte() {
    // Spaces, escapes and numbers beyond any type are the user's, and stay.
    let payload = r#"[{"n":1}, {"fail" : "not \u00fc", "n": 12345678901234567890.10},{}, {"fail":"nor this"}]"#;
    for how in BOTH {
        for task in ["batch", "batch_plain"] {
            let (left, host) = after(task, payload, how).await;
            let [job] = &left[..] else { panic!("{left:?}") };
            assert_eq!(job.payload, r#"[{"fail" : "not \u00fc", "n": 12345678901234567890.10},{"fail":"nor this"}]"#);
            assert_eq!((job.attempts, job.locked_by.as_deref()), (1, None));
            let error = job.last_error.as_deref().unwrap_or_default();
            assert_eq!(error, "2 of 4 items failed:\nitem 1: not ü\nitem 3: nor this");
            assert_eq!(host.events("job_failed")[0]["retry"], true);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_attempt_gets_what_is_left_and_a_queue_goes_on() {
    let database = TestDatabase::installed().await;
    let id = database.add_to_queue("batch", json!([ok(), {"fail": "no"}, ok()]), "q").await;
    work(&database, &[]).await;
    assert_eq!(database.locked_queues().await, 0);
    database.execute(&format!("select graphile_worker.reschedule_jobs(array[{id}], now())")).await;
    work(&database, &[]).await;
    let job = database.job(id).await;
    assert_eq!((job.payload.as_str(), job.attempts), (r#"[{"fail": "no"}]"#.replace(": ", ":").as_str(), 2));
    assert_eq!(job.last_error.as_deref(), Some("1 of 1 items failed:\nitem 0: no"));
}

#[tokio::test(flavor = "multi_thread")]
async fn items_that_failed_for_good_are_not_tried_again() {
    let bad = json!({"fail": "bad", "discard": true});
    let (left, _) = after("batch", &json!([bad, {"fail": "no"}]).to_string(), &[]).await;
    assert_eq!(left[0].payload, r#"[{"fail":"no"}]"#);
    assert_eq!(left[0].last_error.as_deref(), Some("2 of 2 items failed:\nitem 0 (for good): bad\nitem 1: no"));
    // Where nothing else is left, they are what the job failed of.
    let (left, host) = after("batch", &json!([ok(), bad]).to_string(), &[]).await;
    assert_eq!((left[0].payload.clone(), left[0].attempts), (json!([bad]).to_string(), 25));
    assert_eq!(host.events("job_failed")[0]["retry"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_stand_for_nothing_in_the_payload_are_no_results() {
    let (left, host) = after("batch_too_many", &json!([ok(), {"fail": "no"}]).to_string(), &[]).await;
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(host.events("results_ignored")[0]["results"], 3);
}
