//! `taskbay jobs` and `taskbay cleanup` as administrators meet them.

mod large;
mod retry;
mod row_security;
mod times;
mod words;

use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{plugins::install_plugin, postgres::TestDatabase, program::Taskbay};

/// Calls `taskbay jobs …` on a database.
fn jobs(database: &TestDatabase, args: &[&str]) -> Output {
    Taskbay::command("jobs").args(args).env("DATABASE_URL", database.url()).output()
}

/// What it prints and complains of, if it ends with this status.
#[track_caller]
fn said(output: &Output, status: i32) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{text}");
    text
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

#[track_caller]
fn ids_of(output: &Output) -> Vec<i64> {
    json_of(output).as_array().expect("a list").iter().map(|job| job["id"].as_i64().expect("an id")).collect()
}

/// The ids of the jobs that are listed.
#[track_caller]
fn found(database: &TestDatabase, args: &[&str]) -> Vec<i64> {
    ids_of(&jobs(database, &[&["list", "--json"], args].concat()))
}

/// One job in each state; their ids in the order scheduled, ready, running, retrying, failed.
async fn one_of_each() -> (TestDatabase, [i64; 5]) {
    let database = TestDatabase::installed().await;
    let scheduled = database.add_in_an_hour("report", json!({})).await;
    let ready = database.add("send_email", json!({"to": "ada"})).await;
    let running = database.add_to_queue("import", json!([1]), "imports").await;
    let retrying = database.add("send_email", json!({"to": "bob"})).await;
    let failed = database.add("send_email", json!({"to": "eve"})).await;
    database
        .execute(&format!(
            "update graphile_worker._private_jobs set attempts = 1, locked_at = now(), locked_by = 'pool-1' where id = {running};
             update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'pool-1';
             update graphile_worker._private_jobs set attempts = 2, run_at = now() + interval '1 minute', priority = -3,
               last_error = E'smtp: refused\\nsecond line \\x1b[31m', key = 'k', flags = '{{\"bulk\": true}}' where id = {retrying};
             update graphile_worker._private_jobs set attempts = 25, last_error = 'no such address' where id = {failed}"
        ))
        .await;
    (database, [scheduled, ready, running, retrying, failed])
}

#[tokio::test]
async fn a_list_shows_each_job_on_one_line() {
    let (database, _) = one_of_each().await;
    let text = said(&jobs(&database, &["list"]), 0);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    for (line, parts) in lines.iter().zip([
        &["ID", "STATE", "TASK", "RUNS", "TRIED", "PRIO", "QUEUE", "KEY", "DETAILS"][..],
        &["scheduled", "report", "in 59m", "0/25"],
        &["ready", "send_email", "0/25", "{\"to\":\"ada\"}"],
        &["running", "import", "since", "1/25", "imports", "by pool-1"],
        &["retrying", "send_email", "in ", "2/25", "-3", " k ", "smtp: refused\\nsecond line \\u{1b}[31m"],
        &["failed", "send_email", "never", "-/25", "no such address"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} are not all in {line:?}");
    }
    assert!(!text.contains('\x1b'), "colours are for terminals, and jobs may not bring their own");
}

#[tokio::test]
async fn filters_find_jobs_by_what_is_known_of_them() {
    let (database, [scheduled, ready, running, retrying, failed]) = one_of_each().await;
    let found = |args: &[&str]| found(&database, args);
    assert_eq!(found(&[]), [scheduled, ready, running, retrying, failed]);
    assert_eq!(found(&["--state", "scheduled"]), [scheduled]);
    assert_eq!(found(&["--state", "ready,running"]), [ready, running]);
    assert_eq!(found(&["--state", "retrying"]), [retrying]);
    assert_eq!(found(&["--failed"]), [failed]);
    assert_eq!(found(&["--task", "send_email", "--task", "report"]), [scheduled, ready, retrying, failed]);
    assert_eq!(found(&["--task", "send_email", "--state", "ready"]), [ready]);
    assert_eq!(found(&["--queue", "imports"]), [running]);
    assert_eq!(found(&["--key", "k"]), [retrying]);
    assert_eq!(found(&["--locked-by", "pool-1"]), [running]);
    assert_eq!(found(&["--flag", "bulk"]), [retrying]);
    assert_eq!(found(&["--older-than", "1h"]), [0; 0]);
    assert_eq!(found(&["--newer-than", "1h", "--sort", "newest", "--limit", "2"]), [failed, retrying]);
    assert_eq!(found(&["--sort", "priority", "--limit", "1"]), [retrying]);
    assert_eq!(found(&["--sort", "run-at", "--state", "scheduled,retrying"]), [retrying, scheduled]);

    assert!(said(&jobs(&database, &["list", "--limit", "2"]), 0).contains("more than these 2"));
    assert!(said(&jobs(&database, &["list", "--task", "nobody"]), 0).contains("no such jobs"));
    assert!(said(&jobs(&database, &["list", "--state", "borken"]), 2).contains("ready, scheduled, running"));
}

#[tokio::test]
async fn json_has_the_columns_of_the_view_and_the_payload_as_it_is_stored() {
    let database = TestDatabase::installed().await;
    let payload = r#"{"n": 12345678901234567890.10, "n": 1}"#;
    database
        .execute(&format!("select graphile_worker.add_job('t', '{payload}', 'q', 'infinity', flags => '{{f}}')"))
        .await;
    let output = jobs(&database, &["list", "--json"]);
    let job = &json_of(&output)[0];
    let client = database.client().await;
    let sql = "select column_name from information_schema.columns where table_name = 'jobs' order by ordinal_position";
    let mut columns: Vec<String> = client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    columns.extend(["payload".to_owned(), "state".to_owned()]);
    let mut fields: Vec<&String> = job.as_object().expect("an object").keys().collect();
    columns.sort();
    fields.sort();
    assert_eq!(fields, columns.iter().collect::<Vec<_>>());
    assert!(String::from_utf8_lossy(&output.stdout).contains(payload), "not a digit is lost");
    assert_eq!(
        (&job["run_at"], &job["state"], &job["flags"]),
        (&json!("infinity"), &json!("scheduled"), &json!({"f": true}))
    );
    assert_eq!(json_of(&jobs(&database, &["list", "--json", "--failed"])), json!([]));
}

#[tokio::test]
async fn show_tells_everything_of_a_job() {
    let (database, [.., retrying, _]) = one_of_each().await;
    let id = retrying.to_string();
    let text = said(&jobs(&database, &["show", &id]), 0);
    for part in
        ["send_email", "retrying", "2 of 25 times", "bulk", "  smtp: refused\n  second line", "{\n  \"to\": \"bob\"\n}"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains('\x1b'));
    assert_eq!(said(&jobs(&database, &["show", "--key", "k"]), 0), text);
    assert_eq!(said(&jobs(&database, &["show", &id, "--payload"]), 0), "{\"to\":\"bob\"}\n");
    assert_eq!(json_of(&jobs(&database, &["show", &id, "--json"]))["id"], retrying);
    assert!(said(&jobs(&database, &["show", "4711"]), 1).contains("job 4711 does not exist"));
    assert!(said(&jobs(&database, &["show", "--key", "x"]), 1).contains("no job under the key \"x\""));
    said(&jobs(&database, &["show"]), 2);
}

#[tokio::test]
async fn stats_count_by_task_and_state() {
    let (database, _) = one_of_each().await;
    let counts = json_of(&jobs(&database, &["stats", "--json"]));
    assert_eq!(
        counts["tasks"]["send_email"],
        json!({"scheduled": 0, "ready": 1, "running": 0, "retrying": 1, "failed": 1, "total": 3})
    );
    assert_eq!(counts["total"]["total"], 5);
    let text = said(&jobs(&database, &["list", "--summary"]), 0);
    assert!(text.starts_with("TASK") && text.lines().last().is_some_and(|all| all.starts_with("all")), "{text}");
}

#[tokio::test]
async fn a_change_says_what_was_done_and_what_was_left_alone() {
    let (database, [scheduled, ready, running, retrying, failed]) = one_of_each().await;
    let [ready_id, running_id, failed_id] = [ready, running, failed].map(|id| id.to_string());

    let text = said(&jobs(&database, &["complete", &ready_id, &running_id, "4711"]), 1);
    assert!(text.contains(&format!("completed job {ready} (send_email)\n")), "{text}");
    assert!(text.contains(&format!("job {running} is being run by pool-1 since ")), "{text}");
    assert!(text.contains("and was left alone") && text.contains("job 4711 does not exist"), "{text}");

    said(&jobs(&database, &["complete", &running_id]), 1);
    said(&jobs(&database, &["fail", "4711"]), 1);
    let failing = jobs(&database, &["fail", "--key", "k", "--reason", "gave up", "--yes", "--json"]);
    let answer = json_of(&failing);
    assert_eq!((&answer["failed"][0]["id"], &answer["left_alone"]), (&json!(retrying), &json!([])));
    assert_eq!(database.job(retrying).await.last_error.as_deref(), Some("gave up"));

    let again =
        ["reschedule", &failed_id, "--attempts", "0", "--priority", "0", "--max-attempts", "3", "--run-at", "now"];
    assert!(said(&jobs(&database, &again), 0).contains(&format!("rescheduled job {failed}")));
    let job = database.job(failed).await;
    assert_eq!((job.attempts, job.max_attempts), (0, 3));
    let left: Vec<i64> = database.jobs().await.iter().map(|job| job.id).collect();
    assert_eq!(left, [scheduled, running, retrying, failed]);
}

#[tokio::test]
async fn many_jobs_are_changed_only_when_that_is_confirmed() {
    let database = TestDatabase::installed().await;
    let add = "select graphile_worker.add_job('bulk') from generate_series(1, 30)";
    database.execute(add).await;
    database.execute("update graphile_worker._private_jobs set attempts = max_attempts").await;
    assert!(said(&jobs(&database, &["complete", "--all-failed"]), 2).contains("30 jobs would be changed: add --yes"));
    assert_eq!(database.jobs().await.len(), 30);
    assert_eq!(said(&jobs(&database, &["complete", "--all-failed", "--yes"]), 0), "completed 30 jobs\n");
    assert!(database.jobs().await.is_empty());
    assert!(said(&jobs(&database, &["complete", "--all-failed", "--yes"]), 1).contains("nothing was changed"));
}

#[tokio::test]
async fn calls_that_do_not_say_enough_are_refused() {
    let database = TestDatabase::installed().await;
    for (args, complaint) in [
        (&["complete"][..], "say which jobs"),
        (&["complete", "1", "--failed"], "either the ids of jobs, or options"),
        (&["complete", "one"], "a job's id is a whole number"),
        (&["reschedule", "1"], "say what to change"),
        (&["reschedule", "1", "--max-attempts", "0"], "a whole number from 1 to 32767"),
        (&["reschedule", "1", "--run-at", "soon"], "such as 10m"),
        (&["remove"], "--key"),
        (&["unlock"], "WORKER"),
        (&["lst"], "'list'"),
    ] {
        let text = said(&jobs(&database, args), 2);
        assert!(text.contains(complaint), "{complaint:?} is not in {text:?}");
    }
}

#[tokio::test]
async fn remove_tells_a_job_that_waits_from_one_that_runs() {
    let (database, [_, _, running, retrying, _]) = one_of_each().await;
    let text = said(&jobs(&database, &["remove", "--key", "k"]), 0);
    assert_eq!(text, format!("removed job {retrying} (send_email)\n"));
    assert!(said(&jobs(&database, &["remove", "--key", "k"]), 1).contains("no job under the key \"k\""));
    database.execute(&format!("update graphile_worker._private_jobs set key = 'r' where id = {running}")).await;
    assert!(said(&jobs(&database, &["remove", "--key", "r"]), 0).contains("it goes on, without its key"));
}

#[tokio::test]
async fn locks_are_listed_and_taken_from_workers_that_are_named() {
    let (database, [_, _, running, ..]) = one_of_each().await;
    let workers = json_of(&jobs(&database, &["workers", "--json"]));
    assert_eq!(
        (&workers[0]["worker"], &workers[0]["jobs"], &workers[0]["queues"]),
        (&json!("pool-1"), &json!(1), &json!(1))
    );
    assert!(said(&jobs(&database, &["workers"]), 0).contains("pool-1"));
    let text = said(&jobs(&database, &["unlock", "pool-1", "pool-2"]), 1);
    assert!(text.contains("unlocked 1 job and 1 queue of pool-1") && text.contains("pool-2 holds nothing"), "{text}");
    assert_eq!(database.job(running).await.locked_by, None);
    said(&jobs(&database, &["unlock", "pool-1"]), 1);
}

#[tokio::test]
async fn a_database_without_the_schema_is_told_from_a_failure() {
    let database = TestDatabase::new().await;
    let text = said(&jobs(&database, &["list"]), 1);
    assert!(text.contains("schema graphile_worker is not installed") && text.contains("taskbay migrate"), "{text}");
    let add = Taskbay::command("add").arg("t").env("DATABASE_URL", database.url()).output();
    assert!(said(&add, 1).contains("taskbay migrate"));
}

#[tokio::test]
async fn cleanup_has_graphile_workers_names_and_says_what_it_deleted() {
    let (database, [.., failed]) = one_of_each().await;
    let cleanup = |args: &[&str]| Taskbay::command("cleanup").args(args).env("DATABASE_URL", database.url());
    assert_eq!(said(&cleanup(&[]).output(), 0), "forgot 0 queues without jobs\n");
    let text = said(&cleanup(&["GC_TASK_IDENTIFIERS,DELETE_PERMAFAILED_JOBS", "--keep", "x"]).output(), 0);
    assert_eq!(text, "deleted 1 job that failed for good\nforgot 0 task names without jobs\n");
    assert!(database.jobs().await.iter().all(|job| job.id != failed));
    let unknown = said(&cleanup(&["task-names"]).output(), 2);
    assert!(unknown.contains("it is not known which names of tasks workers use"), "{unknown}");
    assert!(said(&cleanup(&["GC_TASKS"]).output(), 2).contains("GC_TASK_IDENTIFIERS (or task-names)"));
    assert_eq!(json_of(&cleanup(&["queues", "--json"]).output()), json!([{"cleanup": "GC_JOB_QUEUES", "deleted": 0}]));
}

#[tokio::test]
async fn run_cleanup_keeps_the_names_of_the_folders_tasks() {
    let database = TestDatabase::installed().await;
    for task in ["send_email", "unused"] {
        let id = database.add(task, json!({})).await.to_string();
        said(&jobs(&database, &["complete", &id]), 0);
    }
    let folder = tempfile::tempdir().expect("a tasks folder");
    install_plugin(folder.path(), "send-email");
    let run = Taskbay::command("run").arg(folder.path()).env("DATABASE_URL", database.url());
    let text = said(&run.args(["--cleanup", "GC_TASK_IDENTIFIERS", "--cleanup", "GC_JOB_QUEUES"]).output(), 0);
    assert_eq!(text, "forgot 1 task name without jobs\nforgot 0 queues without jobs\n");
    let left = "select count(*) from graphile_worker._private_tasks where identifier = 'send_email'";
    assert_eq!(database.id_of(left, &[]).await, 1);
}
