//! What a task sees of its job, and what it can say and add.

use std::time::Duration;

use serde_json::{Value, json};

use super::workplace;
use crate::harness::{jobs::JobRow, program::Taskbay};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_line_of_a_task_carries_its_job_task_plugin_and_build() {
    let (database, folder) = workplace().await;
    for isolation in ["--in-process", "--log-level=debug"] {
        let id = database.add("log_lines", json!({"message": "hello"})).await;
        let mut host = Taskbay::run(&database.url(), folder.path()).args(["--once", isolation]).spawn();
        assert!(host.ended().await.success());
        let build = host.event("plugin_loaded", |_| true).await["build"].clone();
        let line = host.lines().into_iter().find(|line| line["message"] == "hello (info)").expect("the line is there");
        assert_eq!(line["job"], id);
        assert_eq!(line["task"], "log_lines");
        assert_eq!(line["plugin"], "misbehaving");
        assert_eq!(line["build"], build);
        let fields: Value = serde_json::from_str(line["fields"].as_str().unwrap()).unwrap();
        assert_eq!(fields, json!({"n": 1, "name": "ada"}));
        for level in ["debug", "warn", "error"] {
            let message = format!("hello ({level})");
            assert!(host.lines().iter().any(|line| line["message"] == *message), "{message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_knows_its_job() {
    let (database, folder) = workplace().await;
    let id = database
        .id_of(
            "select (graphile_worker.add_job('describe', '{\"a\": 1}', 'a queue', now(), 7, 'a key', -5, array['flag'])).id",
            &[],
        )
        .await;
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());
    let line = host.lines().into_iter().find(|line| line["message"] == "my job").expect("the line is there");
    let fields: Value = serde_json::from_str(line["fields"].as_str().unwrap()).unwrap();
    let job: Value = serde_json::from_str(fields["described"].as_str().unwrap()).unwrap();
    assert_eq!(job["id"], id);
    for (field, value) in [
        ("task", json!("describe")),
        ("attempt", json!(1)),
        ("max_attempts", json!(7)),
        ("priority", json!(-5)),
        ("queue", json!("a queue")),
        ("key", json!("a key")),
        ("revision", json!(0)),
        ("payload", json!("{\"a\": 1}")),
        ("last_error", Value::Null),
    ] {
        assert_eq!(job[field], value, "{field}");
    }
    assert_eq!(job["flags"], json!(["flag"]));
    let micros = |field: &str| job[field].as_str().unwrap().parse::<u128>().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    for field in ["run_at", "created_at", "updated_at"] {
        let ago = now.saturating_sub(Duration::from_micros(u64::try_from(micros(field)).unwrap()));
        assert!(ago < Duration::from_secs(600), "{field} was {ago:?} ago");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_added_by_a_task_has_all_that_it_was_given() {
    let (database, folder) = workplace().await;
    let spec = json!({
        "task": "a task that nobody has", "payload": {"big": 12_345_678_901_234_567_890_u64}, "delay_ms": 3_600_000,
        "queue": "q", "key": "k", "priority": 4, "max_attempts": 3,
    });
    database.add("add", spec).await;
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());
    let JobRow { task, payload, queue, key, priority, max_attempts, .. } = database.only_job().await;
    assert_eq!(task, "a task that nobody has");
    assert_eq!(payload, "{\"big\":12345678901234567890}");
    assert_eq!((queue.as_deref(), key.as_deref(), priority, max_attempts), (Some("q"), Some("k"), 4, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_prints_arrives_in_the_log() {
    let (database, folder) = workplace().await;
    database.add("print", json!({"text": "hello"})).await;
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());
    for message in ["hello (stdout)", "hello (stderr)"] {
        host.event("plugin_output", |line| line["message"] == *message && line["plugin"] == "misbehaving").await;
    }
}
