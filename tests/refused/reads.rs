//! Texts that are not valid UTF-8, as a database with the encoding SQL_ASCII takes them.

use super::*;

async fn sql_ascii() -> Workplace {
    let database = TestDatabase::in_encoding("SQL_ASCII").await;
    taskbay::migrate::prepare(&database.database()).await.expect("install the schema");
    Workplace::on(database)
}

/// Puts a byte that is no UTF-8 into a column of a job.
async fn spoil(database: &TestDatabase, id: i64, what: &str) {
    database.execute(&format!("set client_encoding = 'SQL_ASCII'; {}", what.replace("$id", &id.to_string()))).await;
}

const BAD_PAYLOAD: &str = r#"update graphile_worker._private_jobs
    set payload = (e'{"n": 1, "name": "Ren\xe9"}')::json where id = $id"#;
const BAD_KEY: &str = r"update graphile_worker._private_jobs set key = e'k\xe9' where id = $id";
const BAD_ERROR: &str =
    r"update graphile_worker._private_jobs set last_error = e'd\xe9j\xe0 vu', attempts = 1 where id = $id";
const BAD_QUEUE: &str = r"update graphile_worker._private_job_queues set queue_name = e'q\xe9'";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_read_fails_with_the_reason_and_all_others_run() {
    for lane in ["marked", "express"] {
        let place = sql_ascii().await;
        let host = place.host(lane).await;
        place.database.execute("update graphile_worker._private_tasks set identifier = identifier").await;
        let hour = |n: i64| place.database.add_in_an_hour("echo", json!({"n": n}));
        let (payload, key, error) = (hour(1).await, hour(2).await, hour(3).await);
        let queued = place
            .database
            .id_of("select (graphile_worker.add_job('echo', '{\"n\": 4}', 'q', now() + interval '1 hour')).id", &[])
            .await;
        // A task that nobody has, and that nobody can read.
        let foreign = place.database.add("foreign", nothing()).await;
        spoil(&place.database, payload, BAD_PAYLOAD).await;
        spoil(&place.database, key, BAD_KEY).await;
        spoil(&place.database, error, BAD_ERROR).await;
        spoil(&place.database, queued, BAD_QUEUE).await;
        spoil(
            &place.database,
            foreign,
            r"update graphile_worker._private_tasks set identifier = e'f\xe9' where identifier = 'foreign'",
        )
        .await;

        let list = json_of(&place.jobs(&["list", "--json"]));
        let listed =
            |id: i64| list.as_array().unwrap().iter().find(|job| job["id"] == id).expect("it is listed").clone();
        assert_eq!(listed(key)["key"], r"k\xe9");
        assert_eq!(listed(error)["last_error"], r"d\xe9j\xe0 vu");
        assert_eq!(listed(queued)["queue_name"], r"q\xe9");
        assert_eq!(listed(foreign)["task_identifier"], r"f\xe9");
        let shown = text(&place.jobs(&["show", &payload.to_string()]));
        assert!(shown.contains(r"Ren\xe9"), "{shown}");
        let plain = text(&place.jobs(&["list"]));
        assert!(plain.contains(r"Ren\xe9"), "{plain}");
        assert!(text(&place.jobs(&["stats"])).contains(r"f\xe9"));

        place.database.execute("update graphile_worker._private_jobs set run_at = now() where run_at > now()").await;
        place.add_many(30, "{}").await;
        let failed = host.event("job_failed", of_job(payload)).await;
        assert!(failed.to_string().contains("UTF-8"), "{failed}");
        place.wait_until_left(&[payload, foreign]).await;
        let runs = place.ledger.runs();
        assert_eq!((runs.get(&payload), runs[&key], runs[&error], runs[&queued]), (None, 1, 1, 1), "{lane}");
        host.stop().await;
        let row = json_of(&place.jobs(&["list", "--json", "--failed"]));
        assert_eq!(row[0]["id"], payload);
        assert!(row[0]["last_error"].as_str().is_some_and(|error| error.contains("UTF-8")), "{row}");
    }
}

#[tokio::test]
async fn an_administrator_can_change_what_cannot_be_read() {
    let place = sql_ascii().await;
    for (command, status) in [("reschedule", "ready"), ("fail", "failed"), ("complete", "")] {
        let id = place.database.add("echo", nothing()).await;
        spoil(&place.database, id, BAD_PAYLOAD).await;
        spoil(&place.database, id, &BAD_KEY.replace("k\\xe9", &format!("{command}\\xe9"))).await;
        let mut args = vec![command, "--json"];
        let id = id.to_string();
        args.push(&id);
        if command == "reschedule" {
            args.extend(["--priority", "3"]);
        }
        let done = json_of(&place.jobs(&args));
        let done = done.as_object().and_then(|object| object.values().find(|list| list[0]["id"].is_i64())).cloned();
        let done = done.expect("the job is in the answer");
        assert!(done[0]["payload"].to_string().contains(r"Ren\\xe9"), "{done}");
        if !status.is_empty() {
            assert_eq!(done[0]["state"], status, "{command}");
        }
    }
    let id = place.database.add("echo", nothing()).await;
    spoil(&place.database, id, BAD_PAYLOAD).await;
    place.database.execute(&format!("update graphile_worker._private_jobs set key = 'plain' where id = {id}")).await;
    let removed = place.jobs(&["remove", "--key", "plain"]);
    assert!(removed.status.success(), "{}", text(&removed));
    place
        .database
        .execute(
            r"set client_encoding = 'SQL_ASCII'; update graphile_worker._private_jobs
        set locked_by = e'work\xe9r', locked_at = now()",
        )
        .await;
    let workers = text(&place.jobs(&["workers"]));
    assert!(workers.contains(r"work\xe9r"), "{workers}");
}
