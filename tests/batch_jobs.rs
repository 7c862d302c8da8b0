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
    work_with("misbehaving", database, how).await
}

async fn work_with(plugin: &str, database: &TestDatabase, how: &[&str]) -> Running {
    let folder = tasks_folder();
    install_plugin(folder.path(), plugin);
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").args(how).spawn();
    assert!(host.ended().await.success());
    host
}

const BOTH: [&[&str]; 2] = [&[], &["--in-process"]];

/// What becomes of a job with this payload, and what was said.
async fn after(task: &str, payload: &str, how: &[&str]) -> (Vec<JobRow>, Running) {
    after_with("misbehaving", task, payload, how).await
}

async fn after_with(plugin: &str, task: &str, payload: &str, how: &[&str]) -> (Vec<JobRow>, Running) {
    let database = TestDatabase::installed().await;
    let sql = "select (graphile_worker.add_job($1, $2::text::json)).id";
    database.id_of(sql, &[&task, &payload]).await;
    let host = work_with(plugin, &database, how).await;
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
    let warning = &host.events("results_ignored")[0];
    assert_eq!((&warning["results"], &warning["level"]), (&json!(3), &json!("WARN")));
    assert_eq!(warning["failures"], "2 of 3 items failed:\nitem 1: no\nitem 2: one more");
    let (left, host) = after("batch_too_many", "[]", &[]).await;
    assert!(left.is_empty() && host.events("results_ignored").len() == 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_stored_again_as_they_were_whatever_they_are() {
    let items = [
        r#"{"bad":123456789012345678901234567890,"precise":0.1000000000000000055511151231257827}"#,
        r#"{"z" : "bad\u00e9\ud83e\udd80",  "a":1,"z":"\u0000 \ud800"}"#,
        "[ [ 1,\t2 ],\n\"bad\", 1e400 ]",
    ];
    let deep = format!("{}\"bad\"{}", "[".repeat(500), "]".repeat(500));
    let payload = format!(" [1, {} , \"good\",{},\n{}\n, null ,{deep}] ", items[0], items[1], items[2]);
    for how in BOTH {
        let (left, _) = after_with("typed-plugin", "batch_of_anything", &payload, how).await;
        assert_eq!(left[0].payload, format!("[{},{deep}]", items.join(",")));
        // When all of it fails, all of it stays.
        let whole = format!(" [ {} ,\n{} ] ", items[0], items[1]);
        let (left, _) = after_with("typed-plugin", "batch_of_anything", &whole, how).await;
        assert_eq!(left[0].payload, whole);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_attempt_all_failed_items_are_kept() {
    let database = TestDatabase::installed().await;
    let (bad, worse) = (json!({"fail": "no"}), json!({"fail": "bad", "discard": true}));
    let sql = "select (graphile_worker.add_job('batch', $1, max_attempts := 1)).id";
    database.id_of(sql, &[&json!([worse, ok(), bad])]).await;
    work(&database, &[]).await;
    let job = database.only_job().await;
    assert_eq!(serde_json::from_str::<Value>(&job.payload).unwrap(), json!([worse, bad]));
    assert_eq!((job.attempts, job.max_attempts), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn further_items_join_those_that_are_tried_again() {
    let database = TestDatabase::installed().await;
    let add = async |items: Value| {
        let sql = "select (graphile_worker.add_job('batch', $1, job_key := 'k')).id";
        database.id_of(sql, &[&items]).await
    };
    let bad = json!({"fail": "no"});
    add(json!([ok(), bad])).await;
    work(&database, &[]).await;
    add(json!([ok()])).await;
    let job = database.only_job().await;
    assert_eq!(serde_json::from_str::<Value>(&job.payload).unwrap(), json!([bad, ok()]));
    assert_eq!((job.attempts, job.last_error), (0, None));
}

/// A plugin may say what it likes: the job's items are safe.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_be_true_leaves_the_payload_alone() {
    let payload = r#"{"items":2,"failed":[{"index":1},{"index":1}] }"#;
    for how in BOTH {
        let (left, _) = after_with("raw-plugin", "partly", payload, how).await;
        assert_eq!((left[0].payload.as_str(), left[0].attempts), (payload, 1));
        assert!(left[0].last_error.as_deref().unwrap_or_default().contains("all are tried again"), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stored_error_stays_readable() {
    let item = json!({"fail": "x".repeat(2000)});
    let (left, _) = after("batch", &json!(vec![item; 1000]).to_string(), &[]).await;
    let error = left[0].last_error.as_deref().unwrap_or_default();
    assert!(error.starts_with("1000 of 1000 items failed:\nitem 0: xxx"), "{error}");
    assert!(error.ends_with("\n… and 900 more") && error.lines().count() == 102, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_adds_many_jobs_in_one_statement_and_gets_their_ids_in_order() {
    for how in BOTH {
        let (jobs, _) = after_with("typed-plugin", "adds_many", r#"["second", "first", "third"]"#, how).await;
        let job = |task: &str| jobs.iter().find(|job| job.task == task).expect("the job is there");
        let ids = format!("added [{}, {}, {}]", job("second").id, job("first").id, job("third").id);
        assert_eq!(job("adds_many").last_error.as_ref(), Some(&ids));
        assert_eq!(
            (job("first").payload.as_str(), job("first").key.as_deref()),
            (r#"{"of":"first"}"#, Some("key of first"))
        );

        // One that cannot be added keeps all of them from being added.
        let (jobs, _) =
            after_with("typed-plugin", "adds_many", &json!(["fine", "x".repeat(200)]).to_string(), how).await;
        let [job] = &jobs[..] else { panic!("{jobs:?}") };
        let error = job.last_error.as_deref().unwrap_or_default();
        assert!(error.starts_with("cannot add 2 jobs:") && error.contains("128 characters"), "{error}");
    }
}
