//! Schedules that are declared beside tasks come and go with them.

use crate::harness::{
    plugins::{install_plugin, remove_plugin, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_comes_and_goes_with_the_plugin_that_declares_it() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let host = Taskbay::run(&database.url(), folder.path()).spawn();
    host.event("cron_started", |line| line["items"] == 0).await;
    install_plugin(folder.path(), "daily-digest");
    host.event("schedules_changed", |line| line["added"] == "digest/clean" && line["items"] == 1).await;
    let known = "select count(*) from graphile_worker._private_known_crontabs where identifier = 'digest/clean'";
    let registered = async {
        // A row tells nobody that it came.
        while database.id_of(known, &[]).await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::harness::program::DEADLINE, registered).await.expect("the schedule is registered");
    remove_plugin(folder.path(), "daily-digest");
    host.event("schedules_changed", |line| line["removed"] == "digest/clean" && line["items"] == 0).await;
    host.stop().await;
}
