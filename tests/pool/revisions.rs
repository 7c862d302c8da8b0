//! Another program changes the schema under a running host.

use serde_json::json;

use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay},
};

async fn listening(database: &TestDatabase, folder: &tempfile::TempDir) -> Running {
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path()).spawn();
    host.event("listening", |_| true).await;
    host
}

/// As the installer of a later version does it: the row, then the word, in one transaction.
async fn migrate_to(database: &TestDatabase, number: i32, breaking: bool) {
    let told = json!({"migrationNumber": number, "breaking": breaking});
    let sql = format!(
        "begin; insert into graphile_worker.migrations (id, breaking) values ({number}, {breaking});
         select pg_notify('worker:migrate', '{told}'); commit"
    );
    database.execute(&sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breaking_revision_ends_the_host_with_57_after_its_running_jobs() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    let mut host = listening(&database, &folder).await;
    let running = database.add("sleep", json!({"ms": 300})).await;
    host.event("job_started", |line| line["job"] == running).await;
    migrate_to(&database, 21, true).await;
    let line = host.event("outdated", |_| true).await;
    assert!(line["message"].as_str().is_some_and(|text| text.contains("revision 21")), "{line}");
    assert_eq!(host.ended().await.code(), Some(57));
    assert_eq!(host.events("job_done").len(), 1, "what ran was finished");
    assert!(database.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_breaks_nothing_is_a_warning_and_those_that_are_known_are_nothing() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    let host = listening(&database, &folder).await;
    // Upstream's workers end at any breaking one, even if they know it.
    let told = json!({"migrationNumber": 19, "breaking": true});
    database.execute(&format!("select pg_notify('worker:migrate', '{told}')")).await;
    migrate_to(&database, 22, false).await;
    let warning = host.event("schema_ready", |line| line["level"] == "WARN").await;
    assert_eq!(warning["number"], 22);
    let id = database.add("nothing", json!({})).await;
    host.event("job_done", |line| line["job"] == id).await;
    host.stop().await;
}

/// Whoever was away when it was said looks when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_breaking_revision_that_came_while_the_connection_was_away_is_noticed() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    let mut host = listening(&database, &folder).await;
    // Silently, and then all of its connections end.
    database.execute("insert into graphile_worker.migrations (id, breaking) values (21, true)").await;
    database
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
    assert_eq!(host.ended().await.code(), Some(57));
}
