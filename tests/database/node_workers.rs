//! Workers of the npm package on a schema of ours, and our statements on a schema of theirs.

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};
use taskbay::{
    migrate,
    queue::{ClaimedJob, Conditions, Database, FailedJob, NewJob},
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::harness::{node, postgres::TestDatabase};

#[tokio::test]
async fn node_works_our_jobs_on_our_schema_without_migrating_it() {
    for schema in ["graphile_worker", "Own \"jobs\""] {
        let database = TestDatabase::new().await;
        let host = Database::new(database.settings(schema)).unwrap();
        migrate::prepare(&host).await.unwrap();
        let session = host.session().await.unwrap();
        let client = database.client().await;
        let migrations = format!("select id, ts::text from \"{}\".migrations order by id", schema.replace('"', "\"\""));
        let before = client.simple_query(&migrations).await.unwrap();

        let mut node = node::script("work.cjs", &database.url(), schema);
        let mut worker = node.args(["ours"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
        let mut next = async || {
            let line =
                tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await.expect("Node says something");
            serde_json::from_str::<Value>(&line.unwrap().expect("Node goes on")).unwrap()
        };
        assert_eq!(next().await, json!({"ready": true}));

        let mut job = NewJob::new("ours");
        job.payload = Some(r#"{"n": 1}"#.to_owned());
        job.queue_name = Some("q".to_owned());
        job.job_key = Some("k".to_owned());
        job.flags = vec!["f".to_owned()];
        let added = session.add_job(&job).await.unwrap();
        let expected = json!({
            "id": added.id.to_string(), "task": "ours", "payload": {"n": 1}, "queue": "q", "attempts": 1, "key": "k",
            "flags": {"f": true},
        });
        assert_eq!(next().await, expected);

        drop(worker.stdin.take().unwrap().shutdown().await);
        assert!(worker.wait().await.unwrap().success());
        let after = client.simple_query(&migrations).await.unwrap();
        assert_eq!(format!("{before:?}"), format!("{after:?}"), "no row was written");
        assert_eq!(after.len(), 22, "20 rows between a header and a footer");
        let left = format!("select count(*) from \"{}\"._private_jobs", schema.replace('"', "\"\""));
        assert_eq!(client.query_one(&left, &[]).await.unwrap().get::<_, i64>(0), 0);
    }
}

#[tokio::test]
async fn we_work_jobs_on_a_schema_of_node() {
    let database = TestDatabase::new().await;
    node::install_schema(&database.url(), "graphile_worker").await;
    let host = database.database();
    let revision = migrate::prepare(&host).await.unwrap();
    assert_eq!((revision.number, revision.installed), (20, false));

    let output = node::script("add.cjs", &database.url(), "graphile_worker").output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let session = host.session().await.unwrap();
    let task = session.task_ids(&["theirs"]).await.unwrap();
    let jobs = session.get_jobs("taskbay-test", &task, 10, Conditions::default()).await.unwrap();
    let seen: Vec<_> = jobs.iter().map(|job| (job.payload.as_str(), job.queue_name.as_deref(), job.attempts)).collect();
    assert_eq!(seen, [(r#"{"n":1}"#, None, 1), (r#"{"n":2}"#, Some("q"), 1)]);

    let done = [ClaimedJob::of(&jobs[0])];
    assert_eq!(session.complete_jobs("taskbay-test", &done).await.unwrap(), [jobs[0].id]);
    let failed = FailedJob {
        payload: None,
        claim: ClaimedJob::of(&jobs[1]),
        message: "it broke".to_owned(),
        permanent: false,
        max_attempts: None,
        crashes: None,
    };
    assert_eq!(session.fail_jobs("taskbay-test", &[failed]).await.unwrap().len(), 1);

    // Node finds the failed one again when its time has come.
    let client = database.client().await;
    client.batch_execute("update graphile_worker._private_jobs set run_at = now()").await.unwrap();
    let mut work = node::script("work.cjs", &database.url(), "graphile_worker");
    let output = work.args(["--once", "theirs"]).output().await.unwrap();
    let worked: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&worked["payload"], &worked["attempts"]), (&json!({"n": 2}), &json!(2)));
}
