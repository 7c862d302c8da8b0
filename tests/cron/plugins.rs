//! Schedules that are declared beside tasks come and go with them.

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{
    plugins::{install_plugin, remove_plugin, tasks_folder},
    postgres::TestDatabase,
    processes::children_of,
    program::Taskbay,
    wait::until_true,
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
    until_true("the schedule is registered", async || database.id_of(known, &[]).await > 0).await;
    remove_plugin(folder.path(), "daily-digest");
    host.event("schedules_changed", |line| line["removed"] == "digest/clean" && line["items"] == 0).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_of_a_plugin_outlives_its_crash_and_gives_way_to_the_crontab() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "daily-digest");
    let host = Taskbay::run(&database.url(), folder.path());
    let crontab = host.home().join("crontab");
    let host = host.spawn();
    host.event("cron_started", |line| line["items"] == 1).await;

    // Its jobs wait for it.
    let plugin = children_of(host.id());
    assert_eq!(plugin.len(), 1, "{plugin:?}");
    kill_process(Pid::from_raw(i32::try_from(plugin[0].0).unwrap()).unwrap(), Signal::KILL).unwrap();
    host.event("plugin_restarted", |_| true).await;
    assert_eq!(host.events("schedules_changed").len(), 0);

    // Whoever runs the host may say when.
    std::fs::write(crontab, "0 5 * * * digest/clean").unwrap();
    assert_eq!(host.event("schedule_overridden", |_| true).await["left_out"], "plugin daily_digest");
    host.stop().await;
}
