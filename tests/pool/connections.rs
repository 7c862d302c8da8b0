//! Without listening, jobs are found by polling alone.

use serde_json::json;

use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_listens_where_listening_is_switched_off_and_polls_find_the_jobs() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path()).args(["--no-listen", "--poll-interval", "50ms"]).spawn();
    host.event("worker_ready", |_| true).await;
    let id = database.add("nothing", json!({})).await;
    host.event("job_done", |line| line["job"] == id).await;
    assert_eq!(host.events("listening").len(), 0);
    let listening =
        "select count(*) from pg_stat_activity where query ilike 'listen%' and datname = current_database()";
    assert_eq!(database.id_of(listening, &[]).await, 0);
    host.stop().await;
}
