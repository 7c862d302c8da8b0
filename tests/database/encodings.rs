//! Databases whose text is not in UTF-8: the program works in what they can hold, and says so where they cannot hold a text.

use serde_json::{Value, json};
use taskbay::{JobContext, Options, TaskList};

use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{DEADLINE, Taskbay},
};

/// An encoding, a text that it can hold, and one that it cannot. SQL_ASCII takes any bytes.
const ENCODINGS: [(&str, &str, &str); 3] =
    [("SQL_ASCII", "größe-日本…", ""), ("LATIN1", "größe", "日本…"), ("EUC_JP", "日本語", "€5")];

/// Calls the program, and returns what it prints if it ends with this status.
#[track_caller]
fn said(call: Taskbay, status: i32) -> String {
    let output = call.output();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_any_encoding_is_installed_and_its_jobs_are_run_and_listed() {
    for (encoding, text, beyond) in ENCODINGS {
        let database = TestDatabase::in_encoding(encoding).await;
        let url = database.url();
        let call = |command: &str, args: &[&str]| Taskbay::command(command).args(args).env("DATABASE_URL", &url);
        assert!(said(call("migrate", &[]), 0).contains("installed schema"), "{encoding}");

        let payload = json!({ text: text }).to_string();
        said(call("add", &[text, &payload, "--queue", text, "--key", text, "--flag", text]), 0);
        let listed = said(call("jobs", &["list", "--json", "--task", text, "--queue", text, "--flag", text]), 0);
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        assert_eq!(
            (&listed[0]["task_identifier"], &listed[0]["queue_name"], &listed[0]["key"], &listed[0]["payload"]),
            (&json!(text), &json!(text), &json!(text), &json!({ text: text })),
            "{encoding}"
        );

        // A task whose name the database cannot hold has no jobs, and keeps no other task from having some.
        let (sender, mut payloads) = tokio::sync::mpsc::unbounded_channel();
        let run = move |payload: Value, _: JobContext| {
            let sent = sender.send(payload);
            async move { Ok(sent?) }
        };
        let tasks = TaskList::new().task(text, run.clone()).task(if beyond.is_empty() { "other" } else { beyond }, run);
        let run = taskbay::run_task_list_once(Options::new().config(database.config()), tasks);
        let ended =
            tokio::time::timeout(DEADLINE, run).await.unwrap_or_else(|_| panic!("{encoding}: nothing is claimed"));
        ended.expect("the job is worked");
        assert!(database.jobs().await.is_empty(), "{encoding}");
        assert_eq!(payloads.recv().await, Some(json!({ text: text })), "{encoding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_encoding_cannot_hold_is_refused_with_the_reason() {
    for (encoding, _, beyond) in ENCODINGS.into_iter().filter(|(_, _, beyond)| !beyond.is_empty()) {
        let database = TestDatabase::in_encoding(encoding).await;
        let url = database.url();
        let call = |command: &str, args: &[&str]| Taskbay::command(command).args(args).env("DATABASE_URL", &url);
        said(call("migrate", &[]), 0);
        let payload = json!({ "text": beyond }).to_string();
        for args in [
            &["add", beyond][..],
            &["add", "t", &payload],
            &["add", "t", "--key", beyond],
            &["jobs", "list", "--task", beyond],
        ] {
            let text = said(call(args[0], &args[1..]), 1);
            assert!(text.contains("the database's encoding has no such character"), "{encoding}, {args:?}: {text}");
            assert!(text.contains(encoding), "{encoding}, {args:?}: {text}");
        }
        // JSON has a way around.
        let escaped = beyond.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect::<String>();
        let id = said(call("add", &["t", &format!("{{\"text\": \"{escaped}\"}}")]), 0);
        assert!(said(call("jobs", &["show", id.lines().next().expect("an id"), "--json"]), 0).contains(&escaped));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_the_encoding_cannot_hold_is_stored_with_escapes() {
    for (encoding, _, beyond) in ENCODINGS.into_iter().filter(|(_, _, beyond)| !beyond.is_empty()) {
        let database = TestDatabase::in_encoding(encoding).await;
        said(Taskbay::command("migrate").env("DATABASE_URL", database.url()), 0);
        let escaped = |c: char| format!("\\u{:04x}", u32::from(c));
        let message: String = beyond.chars().map(escaped).collect();
        // Its escapes are longer than what is kept of an error.
        let long = escaped(beyond.chars().next().expect("a character")).repeat(50_000);
        let client = database.client().await;
        let mut ids = Vec::new();
        for message in [&message, &long] {
            let payload = format!("{{\"message\": \"{message}\"}}");
            let added = "select (graphile_worker.add_job('fail', $1::text::json, max_attempts := 1)).id";
            ids.push(client.query_one(added, &[&payload]).await.expect("add a job").get::<_, i64>(0));
        }
        let folder = tasks_folder();
        install_plugin(folder.path(), "misbehaving");
        let mut run = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
        assert!(run.ended().await.success(), "{encoding}");
        let stored = database.job(ids[0]).await.last_error.expect("an error");
        assert!(stored.contains(&beyond.escape_default().to_string()), "{encoding}: {stored}");
        let stored = database.job(ids[1]).await.last_error.expect("an error");
        assert!(stored.ends_with("more bytes)"), "{encoding}: {}", &stored[stored.len() - 60..]);
    }
}
