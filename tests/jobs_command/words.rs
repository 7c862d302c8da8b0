//! What `taskbay jobs` and `taskbay add` say: true sentences, in the words of the person who typed the call.

use std::{fs::File, process::Output};

use serde_json::json;

use super::{jobs, said};
use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

fn add(database: &TestDatabase, args: &[&str]) -> Output {
    Taskbay::command("add").args(args).env("DATABASE_URL", database.url()).output()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_locks_of_a_host_that_is_alive_are_released_by_force_alone() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path()).spawn();
    let owner = host.event("worker_ready", |_| true).await["owner"].as_str().expect("an owner").to_owned();
    // Of a task that the host does not have, so that it leaves the job alone.
    let id = database.add("elsewhere", json!({})).await;
    let lock = |owner: &str| {
        format!("update graphile_worker._private_jobs set locked_at = now(), locked_by = '{owner}', attempts = 1")
    };
    database.execute(&lock(&owner)).await;
    let refused = said(&jobs(&database, &["unlock", &owner, "pool-1"]), 1);
    assert!(refused.contains(&format!("{owner} is alive, so its locks stay: stop that host")), "{refused}");
    assert!(refused.contains("--force") && refused.contains("pool-1 holds nothing"), "{refused}");
    assert_eq!(database.job(id).await.locked_by.as_deref(), Some(&*owner));
    let forced = said(&jobs(&database, &["unlock", "--force", &owner]), 0);
    assert!(forced.contains(&format!("unlocked 1 job and 0 queues of {owner}")), "{forced}");
    assert!(forced.contains("is alive and goes on with 1 job, which other workers may now run as well"), "{forced}");
    host.stop().await;
    database.execute(&lock(&owner)).await;
    assert!(!said(&jobs(&database, &["unlock", &owner]), 0).contains("warning"), "it is gone now");
}

#[tokio::test]
async fn a_job_that_failed_for_good_is_shown_without_a_time_and_without_attempts_that_it_did_not_have() {
    let database = TestDatabase::installed().await;
    let id = database.add("t", json!({})).await;
    database
        .execute(
            "update graphile_worker._private_jobs set attempts = max_attempts, run_at = now() + interval '6 hours', last_error = 'x'",
        )
        .await;
    let text = said(&jobs(&database, &["show", &id.to_string()]), 0);
    assert!(
        text.contains("failed for good: it is not tried again") && text.contains("no attempts left, of 25"),
        "{text}"
    );
    assert!(!text.contains("runs at") && !text.contains("25 of 25"), "{text}");
    let left = said(&jobs(&database, &["reschedule", &id.to_string(), "--in", "5m"]), 1);
    assert!(left.contains("has failed for good") && !left.contains("25 of 25"), "{left}");
}

#[tokio::test]
async fn a_change_that_cannot_be_printed_is_said_to_be_made() {
    let database = TestDatabase::installed().await;
    let on_full_disk = |command: &str, args: &[&str]| {
        let call = Taskbay::command(command).args(args).env("DATABASE_URL", database.url());
        let full = File::options().write(true).open("/dev/full").expect("open /dev/full");
        let output = call.output_to(full);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = on_full_disk("add", &["t"]);
    let id = database.only_job().await.id.to_string();
    assert!(
        text.contains(&format!("added job {id} (t). That is stored in the database, but printing it failed")),
        "{text}"
    );
    database.execute("update graphile_worker._private_jobs set locked_by = 'pool-1', locked_at = now()").await;
    let text = on_full_disk("jobs", &["unlock", "pool-1"]);
    assert!(text.contains("unlocked 1 job and 0 queues of pool-1. That is stored"), "{text}");
    for json in [&[][..], &["--json"]] {
        let text = on_full_disk("jobs", &[&["reschedule", &id, "--priority", "1"], json].concat());
        assert!(text.contains("rescheduled 1 job") && text.contains("No space left"), "{text}");
    }
    let text = on_full_disk("jobs", &["complete", "--task", "t", "--yes"]);
    assert!(text.contains("completed 1 job. That is stored"), "{text}");
    add(&database, &["t", "--key", "k"]);
    assert!(on_full_disk("jobs", &["remove", "--key", "k"]).contains("removed job 2 (t). That is stored"));
    assert!(database.jobs().await.is_empty());
    assert!(on_full_disk("cleanup", &[]).contains("forgot 0 queues without jobs. That is stored"));
}

#[tokio::test]
async fn a_time_that_cannot_be_is_answered_with_the_flag_and_with_times_that_can() {
    let database = TestDatabase::installed().await;
    let id = database.add("t", json!({})).await.to_string();
    for (args, parts) in [
        (&["reschedule", &id, "--in", "-10m"][..], ["'-10m' for '--in <TIME>'", "no minus sign", "such as 10m"]),
        (&["reschedule", &id, "--in", "next week"], ["'next week' for '--in <TIME>'", "tomorrow", "such as 10m"]),
        (&["reschedule", &id, "--run-at", "soon"], ["'soon' for '--run-at <TIME>'", "2030-01-31", "such as 10m"]),
        (&["list", "--added-since", "-2h"], ["'-2h' for '--added-since <TIME>'", "no minus sign", "such as 2h"]),
        (&["list", "--failed-before", "soon"], ["'soon' for '--failed-before <TIME>'", "yesterday", "such as 2h"]),
    ] {
        let text = said(&jobs(&database, args), 2);
        assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} are not all in {text}");
    }
    let text = said(&add(&database, &["t", "--in", "-10m"]), 2);
    assert!(text.contains("'-10m' for '--in <TIME>'") && text.contains("no minus sign"), "{text}");
    said(&jobs(&database, &["reschedule", &id, "--run-at", "1h", "--in", "2h"]), 0);
    assert!(database.seconds_until_run(id.parse().unwrap()).await > 5_400.0, "the last of two counts");
}

#[tokio::test]
async fn a_mistyped_task_is_answered_with_the_one_that_was_meant() {
    let database = TestDatabase::installed().await;
    database.add("send_email", json!({})).await;
    for args in [
        &["list", "--task", "sned_email"][..],
        &["stats", "--task", "sned_email"],
        &["complete", "--task", "sned_email", "--yes"],
    ] {
        let output = jobs(&database, args);
        let text = String::from_utf8_lossy(&output.stderr);
        let expected = "this database knows no task \"sned_email\"; did you mean \"send_email\"?\n";
        assert_eq!(text, expected, "{args:?}");
    }
    assert!(!said(&jobs(&database, &["list", "--task", "send_email"]), 0).contains("knows no task"));
}

#[tokio::test]
async fn what_is_no_number_and_what_has_no_flag_is_answered_with_what_is_right() {
    let database = TestDatabase::installed().await;
    for (output, part) in [
        (jobs(&database, &["show", "abc"]), "a job's id is a whole number, as `taskbay jobs list` shows it"),
        (jobs(&database, &["list", "--limit", "many"]), "it must be a whole number from 1"),
        (jobs(&database, &["reschedule", "1", "--priority", "high"]), "a whole number from -32768 to 32767"),
        (jobs(&database, &["show", "--id", "7"]), "taskbay jobs show 42"),
        (add(&database, &["t", "--payload", "{}"]), "have no flags: taskbay add send_email '{"),
        (add(&database, &[""]), "a task has a name"),
        (add(&database, &["t", "--max-attempts", "often"]), "a whole number from 1 to 32767"),
    ] {
        let text = said(&output, 2);
        assert!(text.contains(part) && !text.contains("digit"), "{part:?} is not in {text}");
    }
    assert!(database.jobs().await.is_empty());
}
