//! A schema may have any name.

use serde_json::json;

use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_live_their_whole_life_in_a_schema_whose_name_needs_quoting() {
    const SCHEMA: &str = r#"Our "own" Jobs.v2 ü"#;
    let (database, folder) = (TestDatabase::new().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path()).args(["--schema", SCHEMA]).spawn();
    host.event("listening", |_| true).await;
    let client = database.client().await;
    let quoted = format!("\"{}\"", SCHEMA.replace('"', "\"\""));
    let add = async |task: &str, payload: serde_json::Value| -> i64 {
        let sql = format!("select ({quoted}.add_job($1, $2, queue_name := 'q', max_attempts := 1)).id");
        client.query_one(&sql, &[&task, &payload]).await.expect("add a job").get(0)
    };
    let done = add("nothing", json!({})).await;
    host.event("job_done", |line| line["job"] == done).await;
    let failed = add("fail", json!({"message": "no luck"})).await;
    host.event("job_failed", |line| line["job"] == failed).await;
    host.stop().await;
    let sql = format!("select id, last_error, locked_by from {quoted}.jobs");
    let rows = client.query(&sql, &[]).await.expect("read the jobs");
    let left: Vec<(i64, String, Option<String>)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(left, [(failed, "no luck".to_owned(), None)]);
}
