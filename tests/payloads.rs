//! Payloads arrive as they were stored, or fail their job with a clear error.

use crate::harness::{
    ledger::{Entry, Ledger},
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

/// JSON texts that careless handling would change.
fn texts() -> Vec<String> {
    let megabyte = format!("{{\"text\":\"{}\"}}", "0123456789abcdef".repeat(64 * 1024));
    let nested = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    vec![
        megabyte,
        nested,
        r#"{"name":"Łódź","emoji":"🦀","escaped":"\u00e9\ud83e\udd80"}"#.into(),
        "null".into(),
        "[1, 2,  3]".into(),
        r#"{"big":123456789012345678901234567890,"precise":0.1000000000000000055511151231257827}"#.into(),
        r#"{"nul":"a\u0000b"}"#.into(),
        r#"{"b":1,"a":2,"b":3}"#.into(),
        r#""just text""#.into(),
        "{}".into(),
        "9007199254740993".into(),
    ]
}

async fn payloads_arrive_unchanged(isolation: &[&str]) {
    let database = TestDatabase::installed().await;
    let (folder, ledger) = (tasks_folder(), Ledger::new());
    install_plugin(folder.path(), "misbehaving");
    let client = database.client().await;
    let texts = texts();
    for text in &texts {
        client.execute("select graphile_worker.add_job('echo', $1::text::json)", &[text]).await.expect("add a job");
    }

    let mut host = Taskbay::run(&database.url(), folder.path())
        .args(["--once", "-j", "1"])
        .args(isolation)
        .ledger(&ledger)
        .spawn();
    assert!(host.ended().await.success());

    // A job that the host claimed ahead and released may run after those behind it.
    let mut arrived = ledger.entries();
    arrived.sort_by_key(|entry| entry.job);
    assert_eq!(arrived.len(), texts.len());
    for (sent, Entry { payload: got, .. }) in texts.iter().zip(&arrived) {
        assert!(sent == got, "sent {} and got {}", shown(sent), shown(got));
    }
    database.wait_until_no_jobs().await;
}

fn shown(text: &str) -> &str {
    &text[..text.len().min(100)]
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_arrive_unchanged_in_a_child() {
    payloads_arrive_unchanged(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_arrive_unchanged_in_process() {
    payloads_arrive_unchanged(&["--in-process"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_does_not_fit_fails_its_job_with_the_field() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    let client = database.client().await;
    client.execute("select graphile_worker.add_job('sleep', '{\"ms\": \"long\"}')", &[]).await.expect("add a job");

    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());

    let error = database.only_job().await.last_error.expect("the job failed");
    assert!(error.contains("payload") && error.contains("sleep") && error.contains("string \"long\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_message_with_a_nul_is_stored_cleaned() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "misbehaving");
    let client = database.client().await;
    client.execute("select graphile_worker.add_job('fail_with_nul')", &[]).await.expect("add a job");

    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());

    let job = database.only_job().await;
    let error = job.last_error.expect("the error is stored");
    assert!(error.contains("before") && error.contains("after") && !error.contains('\0'), "{error:?}");
    assert!(job.locked_by.is_none());
}
