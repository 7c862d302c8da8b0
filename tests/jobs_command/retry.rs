//! Jobs that failed run again, or are gone, by what a person calls it.

use serde_json::json;

use super::{jobs, json_of, one_of_each, said};
use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_failed_for_good_runs_again_when_it_is_retried() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let id = database.add("discard", json!({"message": "pointless"})).await;
    let once = || Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(once().ended().await.success());
    let job = database.job(id).await;
    assert_eq!((job.attempts, job.last_error.as_deref()), (25, Some("pointless")));

    let id_text = id.to_string();
    assert_eq!(said(&jobs(&database, &["retry", &id_text]), 0), format!("retried job {id} (discard)\n"));
    let job = database.job(id).await;
    assert_eq!((job.attempts, job.max_attempts, job.last_error.as_deref()), (0, 25, Some("pointless")));

    database.execute("update graphile_worker._private_jobs set payload = '{\"message\": \"again\"}'").await;
    assert!(once().ended().await.success());
    assert_eq!(database.job(id).await.last_error.as_deref(), Some("again"), "it ran");
}

#[tokio::test]
async fn retry_is_for_jobs_that_were_tried() {
    let (database, [scheduled, ready, running, retrying, failed]) = one_of_each().await;
    let [scheduled_id, running_id] = [scheduled, running].map(|id| id.to_string());
    let text = said(&jobs(&database, &["retry", &scheduled_id, &running_id]), 1);
    assert!(text.contains(&format!("job {scheduled} has not been tried yet")), "{text}");
    assert!(text.contains(&format!("jobs reschedule {scheduled} --run-at now")), "{text}");
    assert!(text.contains(&format!("job {running} is being run by pool-1")), "{text}");

    let answer = json_of(&jobs(&database, &["retry", "--task", "send_email", "--yes", "--json"]));
    let ids: Vec<i64> = answer["retried"].as_array().unwrap().iter().filter_map(|job| job["id"].as_i64()).collect();
    assert_eq!((ids, &answer["left_alone"]), (vec![retrying, failed], &json!([])));
    for id in [retrying, failed] {
        assert_eq!(database.job(id).await.attempts, 0);
        assert!(database.seconds_until_run(id).await <= 0.0, "it is due");
    }
    assert_eq!(database.job(ready).await.attempts, 0);
    assert!(database.seconds_until_run(scheduled).await > 60.0, "it was not meant");
}

#[tokio::test]
async fn rescheduling_a_job_without_attempts_says_so_and_names_retry() {
    let (database, [.., failed]) = one_of_each().await;
    let id = failed.to_string();
    let before = database.seconds_until_run(failed).await;
    for change in [&["--run-at", "in 1h"][..], &["--priority", "3"], &["--max-attempts", "20"], &["--attempts", "99"]] {
        let change = change.iter().map(|part| part.trim_start_matches("in "));
        let args: Vec<&str> = ["reschedule", &id].into_iter().chain(change).collect();
        let text = said(&jobs(&database, &args), 1);
        assert!(!text.contains("rescheduled") && text.contains("has failed for good"), "{text}");
        assert!(text.contains(&format!("`taskbay jobs retry {failed}`")), "{text}");
    }
    let job = database.job(failed).await;
    assert_eq!((job.priority, job.attempts, job.max_attempts), (0, 25, 25), "it is as it was");
    assert!(database.seconds_until_run(failed).await <= before);
    let again = ["reschedule", &id, "--max-attempts", "26", "--run-at", "now"];
    assert_eq!(said(&jobs(&database, &again), 0), format!("rescheduled job {failed} (send_email)\n"));
}

#[tokio::test]
async fn jobs_are_removed_by_their_ids_or_by_what_they_have_in_common() {
    let (database, [scheduled, ready, running, retrying, failed]) = one_of_each().await;
    let [ready_id, running_id] = [ready, running].map(|id| id.to_string());
    let text = said(&jobs(&database, &["remove", &ready_id, &running_id]), 1);
    assert!(text.contains(&format!("removed job {ready} (send_email)\n")), "{text}");
    assert!(text.contains(&format!("job {running} is being run by pool-1")), "{text}");
    assert!(said(&jobs(&database, &["remove", "--failed"]), 2).contains("1 job would be changed: add --yes"));
    assert_eq!(
        said(&jobs(&database, &["remove", "--failed", "--yes"]), 0),
        format!("removed job {failed} (send_email)\n")
    );
    let left: Vec<i64> = database.jobs().await.iter().map(|job| job.id).collect();
    assert_eq!(left, [scheduled, running, retrying]);
}

/// A script that names jobs has to hear that one of them was not changed.
#[tokio::test]
async fn an_id_that_was_not_changed_ends_with_status_1_after_the_others_were() {
    for action in ["complete", "fail", "retry", "reschedule", "remove"] {
        let database = TestDatabase::installed().await;
        let id = database.add("t", json!({})).await;
        database.execute("update graphile_worker._private_jobs set attempts = 1").await;
        let id_text = id.to_string();
        let mut args = vec![action, "99", &id_text];
        if action == "reschedule" {
            args.extend(["--priority", "1"]);
        }
        let text = said(&jobs(&database, &args), 1);
        assert!(text.contains("job 99 does not exist"), "{action}: {text}");
        assert!(text.contains(&format!("ed job {id} (t)\n")), "{action}: {text}");
    }
}
