//! Batch jobs: of an array, only the items that failed are tried again.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    jobs::JobRow,
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay},
};

struct Workplace {
    database: TestDatabase,
    folder: TempDir,
    isolation: &'static [&'static str],
}

impl Workplace {
    async fn new(isolation: &'static [&'static str]) -> Self {
        let (database, folder) = (TestDatabase::installed().await, tasks_folder());
        install_plugin(folder.path(), "typed-plugin");
        Self { database, folder, isolation }
    }

    /// Adds a job whose payload is stored as it is written here.
    async fn add(&self, task: &str, payload: &str) -> i64 {
        let sql = "select (graphile_worker.add_job($1, $2::text::json)).id";
        self.database.id_of(sql, &[&task, &payload]).await
    }

    /// Adds to the job that waits under a key.
    async fn add_under_key(&self, payload: &Value) {
        let sql = "select (graphile_worker.add_job('batch', $1, job_key := 'k')).id";
        self.database.id_of(sql, &[payload]).await;
    }

    /// Runs what can be run now.
    async fn run(&self) -> Running {
        let host = Taskbay::run(&self.database.url(), self.folder.path()).arg("--once").args(self.isolation);
        let mut host = host.spawn();
        assert!(host.ended().await.success());
        host
    }

    async fn run_again(&self) -> Running {
        self.database
            .execute("select graphile_worker.reschedule_jobs(array(select id from graphile_worker.jobs), now())")
            .await;
        self.run().await
    }

    async fn stamps(&self) -> (String, i64) {
        let sql = "select updated_at::text, revision::int8 from graphile_worker._private_jobs";
        let row = self.database.client().await.query_one(sql, &[]).await.expect("one job");
        (row.get(0), row.get(1))
    }
}

/// The attempts, the payload and the error of a job that is not locked.
fn told(job: &JobRow) -> (i16, &str, &str) {
    assert_eq!(job.locked_by, None);
    (job.attempts, &job.payload, job.last_error.as_deref().unwrap_or_default())
}

macro_rules! on_both_runners {
    ($($test:ident),* $(,)?) => {
        mod isolated {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Workplace::new(&[]).await).await;
            })*
        }
        mod in_process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Workplace::new(&["--in-process"]).await).await;
            })*
        }
    };
}

on_both_runners! {
    on_success_the_job_is_deleted,
    on_failure_the_job_keeps_its_payload,
    on_partial_failure_the_job_keeps_just_the_failed_items,
    on_partial_failure_of_an_async_task_the_job_keeps_just_the_failed_items,
    failed_items_keep_every_byte,
    a_report_that_cannot_be_believed_leaves_the_payload_alone,
    many_jobs_are_added_in_one_statement,
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_under_one_key_gather_their_items() {
    let place = Workplace::new(&[]).await;
    for item in 1..=3 {
        place.add_under_key(&json!([{ "a": item }])).await;
    }
    let job = place.database.only_job().await;
    assert_eq!(serde_json::from_str::<Value>(&job.payload).unwrap(), json!([{ "a": 1 }, { "a": 2 }, { "a": 3 }]));
    assert_eq!((job.attempts, job.queue), (0, None));
    // Items that failed gather further ones as well.
    place.add_under_key(&json!(["bad"])).await;
    place.run().await;
    place.add_under_key(&json!(["late"])).await;
    let job = place.database.only_job().await;
    assert_eq!(told(&job), (0, r#"["bad", "late"]"#, ""));
}

async fn on_success_the_job_is_deleted(place: Workplace) {
    for task in ["takes_all", "batch", "batch_later"] {
        place.add(task, r#"["fine", "good", {"well": 1}]"#).await;
        place.add(task, "[]").await;
    }
    let host = place.run().await;
    assert_eq!((host.events("job_done").len(), host.events("item_results_ignored").len()), (6, 0));
    place.database.wait_until_no_jobs().await;
}

async fn on_failure_the_job_keeps_its_payload(place: Workplace) {
    let payload = r#"[ "disaster",  "bad", "good" ]"#;
    place.add("batch_later", payload).await;
    place.run().await;
    assert_eq!(told(&place.database.only_job().await), (1, payload, "nothing works today"));
}

async fn on_partial_failure_the_job_keeps_just_the_failed_items(place: Workplace) {
    keeps_just_the_failed_items(&place, "batch").await;
}

async fn on_partial_failure_of_an_async_task_the_job_keeps_just_the_failed_items(place: Workplace) {
    keeps_just_the_failed_items(&place, "batch_later").await;
}

async fn keeps_just_the_failed_items(place: &Workplace, task: &str) {
    let id = place.add(task, r#"["bad 1", "good 2", "bad 3", "good 4"]"#).await;
    let stamps = place.stamps().await;
    let host = place.run().await;
    let error = "2 of 4 items failed\nitem 1 of 4: not now: \"bad 1\"\nitem 3 of 4: not now: \"bad 3\"";
    assert_eq!(told(&place.database.only_job().await), (1, r#"["bad 1","bad 3"]"#, error));
    let failure = &host.events("job_failed")[0];
    assert_eq!((&failure["job"], &failure["retry"]), (&json!(id), &json!(true)));
    assert_eq!(place.stamps().await, stamps, "a failure is no change from outside");
    let wait = place.database.seconds_until_run(id).await;
    assert!(wait < 2.72, "{wait}");

    // Only these are tried the next time.
    place.run_again().await;
    let error = "2 of 2 items failed\nitem 1 of 2: not now: \"bad 1\"\nitem 2 of 2: not now: \"bad 3\"";
    assert_eq!(told(&place.database.only_job().await), (2, r#"["bad 1","bad 3"]"#, error));
}

async fn failed_items_keep_every_byte(place: Workplace) {
    let items = [
        r#"{"bad":123456789012345678901234567890,"precise":0.1000000000000000055511151231257827}"#,
        r#"{"z" : "bad\u00e9\ud83e\udd80",  "a":1,"z":"\u0000 \ud800"}"#,
        "[ [ 1,\t2 ],\n\"bad\", 1e400 ]",
    ];
    let payload = format!("[1, {} , \"good\",{},\n{}\n, null ]", items[0], items[1], items[2]);
    place.add("batch", &payload).await;
    place.run().await;
    assert_eq!(place.database.only_job().await.payload, format!("[{}]", items.join(",")));
    // When all of it fails, all of it stays.
    let payload = format!(" [ {} ,\n{} ] ", items[0], items[1]);
    place.database.execute("delete from graphile_worker._private_jobs").await;
    place.add("batch", &payload).await;
    place.run().await;
    assert_eq!(place.database.only_job().await.payload, payload);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_that_failed_for_good_are_not_tried_again() {
    let place = Workplace::new(&[]).await;
    place.add("batch", r#"["hopeless 1", "bad 2", "good 3"]"#).await;
    place.run().await;
    let error = "2 of 3 items failed\nitem 1 of 3, for good: never: \"hopeless 1\"\nitem 2 of 3: not now: \"bad 2\"";
    assert_eq!(told(&place.database.only_job().await), (1, r#"["bad 2"]"#, error));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_which_only_hopeless_items_are_left_fails_for_good_and_keeps_them() {
    let place = Workplace::new(&[]).await;
    place.add("batch", r#"["hopeless 1", "good 2"]"#).await;
    let host = place.run().await;
    assert_eq!(host.events("job_failed")[0]["retry"], false);
    let job = place.database.only_job().await;
    assert_eq!((job.attempts, job.payload.as_str()), (job.max_attempts, r#"["hopeless 1"]"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_attempt_all_failed_items_are_kept() {
    let place = Workplace::new(&[]).await;
    let sql = "select (graphile_worker.add_job('batch', $1, max_attempts := 1)).id";
    place.database.id_of(sql, &[&json!(["hopeless 1", "good 2", "bad 3"])]).await;
    place.run().await;
    let job = place.database.only_job().await;
    assert_eq!((job.attempts, job.payload.as_str()), (1, r#"["hopeless 1","bad 3"]"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_are_not_one_for_each_item_are_ignored_with_a_warning() {
    let place = Workplace::new(&[]).await;
    let short = place.add("batch_and_one", "[1, 2]").await;
    let single = place.add("batch_and_one", r#"{"to": "ada"}"#).await;
    let host = place.run().await;
    place.database.wait_until_no_jobs().await;
    let reason = |id: i64| {
        let warnings = host.events("item_results_ignored");
        let warning = warnings.iter().find(|line| line["job"] == id).expect("a warning").clone();
        assert_eq!(warning["level"], "WARN");
        warning["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason(short), "the task reported on 3 items (1 failed, first: lost), but the payload has 2 items");
    assert_eq!(reason(single), "the task reported on 1 item (1 failed, first: lost), but the payload is no array");
    assert_eq!(host.events("job_done").len(), 2);
}

async fn a_report_that_cannot_be_believed_leaves_the_payload_alone(place: Workplace) {
    install_plugin(place.folder.path(), "raw-plugin");
    let payload = r#"{"items":2,"failed":[{"index":1},{"index":1}] }"#;
    place.add("items", payload).await;
    place.run().await;
    let job = place.database.only_job().await;
    let (attempts, kept, error) = told(&job);
    assert_eq!((attempts, kept), (1, payload));
    assert!(error.ends_with("item 1 twice"), "{error}");
}

/// A thousand items fail with long reasons.
#[tokio::test(flavor = "multi_thread")]
async fn the_stored_error_stays_readable() {
    let place = Workplace::new(&[]).await;
    let item = format!("bad {}", "x".repeat(2000));
    place.add("batch", &json!(vec![item; 1000]).to_string()).await;
    place.run().await;
    let error = place.database.only_job().await.last_error.unwrap();
    assert!(error.starts_with("1000 of 1000 items failed\nitem 1 of 1000: not now: \"bad xxx"), "{error}");
    assert!(error.ends_with("\n… and 900 more") && error.lines().count() == 102, "{error}");
}

async fn many_jobs_are_added_in_one_statement(place: Workplace) {
    let adds = place.add("adds_many", r#"["second", "first", "third"]"#).await;
    place.run().await;
    let jobs = place.database.jobs().await;
    let id = |task: &str| jobs.iter().find(|job| job.task == task).expect("the job was added").id;
    let expected = format!("added [{}, {}, {}]", id("second"), id("first"), id("third"));
    assert_eq!(place.database.job(adds).await.last_error, Some(expected));
    assert_eq!(jobs.iter().find(|job| job.task == "first").unwrap().payload, r#"{"of":"first"}"#);

    // One that cannot be added keeps all of them from being added.
    place.database.execute("delete from graphile_worker._private_jobs").await;
    let long = "x".repeat(200);
    let adds = place.add("adds_many", &json!(["fine", long]).to_string()).await;
    place.run().await;
    let error = place.database.only_job().await.last_error.unwrap();
    assert!(error.starts_with("cannot add 2 jobs:") && error.contains("at most 128 characters"), "{error}");
    assert_eq!(place.database.only_job().await.id, adds);
}
