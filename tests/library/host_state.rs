//! What a host shows of itself while it runs: its state, and a snapshot of each stage.

use std::fs;

use rustix::process::Signal;
use taskbay::{
    TaskDefinition,
    config::{Origin, Value as SettingValue},
    crontab::CronItem,
    host::{Control, HostHandle, HostState},
    tasks::{FileSnapshot, FolderSnapshot},
    work::LivenessLock,
};

use super::*;
use crate::harness::{
    cluster::{Cluster, End},
    plugins::{build_labelled, install, install_plugin, tasks_folder},
    program::Taskbay,
    wait::{until, until_true},
};

const FILE: &str = "libmisbehaving.so";

/// Waits until the folder is as it should be.
#[track_caller]
fn folder_that(host: &HostHandle, matches: impl Fn(&FolderSnapshot) -> bool) -> impl Future<Output = FolderSnapshot> {
    until("the folder", async move || match host.folder().await {
        Some(folder) if matches(&folder) => Ok(folder),
        other => Err(format!("{other:#?}").replace(char::is_numeric, "")),
    })
}

fn file<'a>(folder: &'a FolderSnapshot, name: &str) -> &'a FileSnapshot {
    folder.files.iter().find(|file| file.file == name).expect("the file is known")
}

fn serving(folder: &FolderSnapshot) -> Option<&str> {
    Some(folder.files.iter().find(|file| file.file == FILE)?.serving.as_ref()?.build.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_shows_how_far_it_has_come_and_nothing_more_when_it_has_ended() {
    let database = TestDatabase::installed().await;
    let (mut gate, control) = (Gate::closed(), Control::default());
    let host = control.host();
    assert_eq!(host.state(), HostState::Starting);
    assert!(host.pool().is_none() && host.database().is_none() && host.liveness().is_none());
    let runner = taskbay::run(options(&database).tasks(gate.task("job3")).control(control)).await.expect("it starts");
    assert_eq!((host.state(), runner.host().state()), (HostState::Working, HostState::Working));
    database.add("job3", a("1")).await;
    gate.started().await;
    runner.pool().graceful_shutdown();
    assert_eq!(host.state(), HostState::Stopping);
    gate.let_go(1);
    within(runner.wait()).await.expect("it ends");
    assert_eq!(host.state(), HostState::Ended);
    assert!(host.pool().is_none() && host.tasks().is_none() && host.schedules().is_none());
    assert!(host.database().is_none() && host.liveness().is_none() && host.folder().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_shows_its_slots_and_jobs() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::closed();
    for _ in 0..3 {
        database.add("job3", a("1")).await;
    }
    let runner = taskbay::run(options(&database).tasks(gate.task("job3")).concurrency(2)).await.expect("it starts");
    let host = runner.host();
    gate.started().await;
    gate.started().await;
    let pool = host.pool().expect("it works");
    assert_eq!((pool.owner.as_str(), pool.slots, pool.running), (runner.pool().id(), 2, 2));
    assert!(pool.unsettled >= 2 && !pool.stopping, "{pool:?}");
    let tasks = host.tasks().expect("it works");
    assert_eq!(tasks.tasks.iter().map(|task| task.task.as_str()).collect::<Vec<_>>(), ["job3"]);
    // There is no folder and no crontab.
    assert!(host.folder().await.is_none());
    gate.let_go(3);
    database.wait_until_no_jobs().await;
    until_true("all jobs are settled", async || {
        host.pool().is_some_and(|pool| (pool.running, pool.waiting, pool.unsettled) == (0, 0, 0))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_shows_what_serves_drains_is_on_trial_is_refused_and_is_skipped() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install(folder.path(), FILE, &build_labelled(1));
    fs::write(folder.path().join("notes.txt"), "no task").expect("write a file");
    let options = options(&database).folder(folder.path()).program(env!("CARGO_BIN_EXE_taskbay"));
    let runner = taskbay::run(options).await.expect("it starts");
    let host = runner.host();
    let first = folder_that(&host, |folder| serving(folder).is_some()).await;
    let build = serving(&first).expect("it serves").to_owned();
    assert!(first.draining.is_empty() && file(&first, FILE).serving.as_ref().is_some_and(|one| one.trial.is_none()));
    assert_eq!(first.skipped.iter().map(|skipped| skipped.file.as_str()).collect::<Vec<_>>(), ["notes.txt"]);
    let task = host.tasks().and_then(|tasks| tasks.tasks.into_iter().find(|task| task.task == "sleep"));
    assert_eq!(task.map(|task| (task.plugin, task.build)), Some(("misbehaving".to_owned(), build.clone())));

    database.add("sleep", json!({ "ms": 1_000_000 })).await;
    folder_that(&host, |folder| file(folder, FILE).serving.as_ref().is_some_and(|one| one.running_jobs == 1)).await;
    install(folder.path(), FILE, &build_labelled(2));
    let second = folder_that(&host, |folder| serving(folder).is_some_and(|now| now != build)).await;
    let trial = file(&second, FILE).serving.as_ref().and_then(|one| one.trial.clone()).expect("it is on trial");
    assert_eq!((&trial.before, trial.ends_in > seconds(60)), (&build, true));
    let draining = |folder: &FolderSnapshot| -> Vec<(String, usize)> {
        folder.draining.iter().map(|one| (one.build.clone(), one.running_jobs)).collect()
    };
    assert_eq!(draining(&second), [(build.clone(), 1)]);

    // Without a job, a build does not stay.
    let before = serving(&second).expect("it serves").to_owned();
    install(folder.path(), FILE, &build_labelled(3));
    let third =
        folder_that(&host, |folder| serving(folder).is_some_and(|now| now != before) && folder.draining.len() == 1);
    assert_eq!(draining(&third.await), [(build.clone(), 1)]);

    install(folder.path(), "libother.so", b"no plugin");
    let refused = folder_that(&host, |folder| folder.files.iter().any(|file| file.refused.is_some())).await;
    let refusal = file(&refused, "libother.so").refused.as_ref().expect("it is refused");
    assert!(!refusal.reason.is_empty() && file(&refused, FILE).refused.is_none(), "{refusal:?}");
    within(runner.kill()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_shows_a_build_that_was_rolled_back() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install(folder.path(), FILE, &build_labelled(1));
    let events = Events::default();
    let mut heard = Heard::from(&events);
    let options = options(&database).folder(folder.path()).program(env!("CARGO_BIN_EXE_taskbay")).events(events);
    let runner = taskbay::run(options).await.expect("it starts");
    let host = runner.host();
    let first = folder_that(&host, |folder| serving(folder).is_some()).await;
    let good = serving(&first).expect("it serves").to_owned();
    install(folder.path(), FILE, &build_labelled(2));
    let second = folder_that(&host, |folder| serving(folder).is_some_and(|now| now != good)).await;
    let crashing = serving(&second).expect("it serves").to_owned();
    for _ in 0..3 {
        database.add("abort", json!({})).await;
        heard.event(|event| matches!(event, Event::JobFailed { .. }).then_some(())).await;
    }
    let back = folder_that(&host, |folder| serving(folder) == Some(&good)).await;
    assert_eq!(file(&back, FILE).rolled_back.as_ref(), Some(&crashing));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedules_show_their_origin_and_next_fires_and_those_that_are_not_in_force() {
    let database = TestDatabase::installed().await;
    let (gate, folder) = (Gate::open(), tempfile::tempdir().expect("a folder"));
    let crontab = folder.path().join("crontab");
    fs::write(&crontab, "0 4 * * * job3 ?id=night\n").expect("write the crontab");
    let daily = TaskDefinition::new("daily", |_: Value, _: JobContext| async { Ok(()) }).schedule("30 2 1 1 *");
    let same = CronItem::new("job3", "* * * * *").and_then(|item| item.identifier("night")).expect("an item");
    let options = options(&database).tasks(gate.task("job3").with(daily)).crontab(&crontab).cron_items(vec![same]);
    let runner = taskbay::run(options).await.expect("it starts");
    let host = runner.host();
    let of = |host: &HostHandle| host.schedules().expect("it has a clock");
    until_true("the schedules are in force", async || of(&host).schedules.len() == 2).await;
    let cron = of(&host);
    let shown: Vec<(&str, &str)> =
        cron.schedules.iter().map(|one| (one.item.identifier.as_str(), one.origin.as_str())).collect();
    assert_eq!(shown[0], ("night", "the crontab"));
    assert!(shown[1].0 == "daily" && shown[1].1.starts_with("plugin "), "{shown:?}");
    let [one, two, three] = cron.schedules[0].next[..] else { panic!("{:?}", cron.schedules[0].next) };
    assert_eq!((two.as_second() - one.as_second(), three.as_second() - two.as_second()), (86_400, 86_400));
    assert_eq!(one.as_second() % 86_400, 4 * 3_600);
    let [overridden] = &cron.overridden[..] else { panic!("{:?}", cron.overridden) };
    assert_eq!((overridden.identifier.as_str(), overridden.kept.as_str()), ("night", "the crontab"));
    assert_eq!((cron.crontab_refused, cron.refused.len(), cron.unstored), (None, 0, 0));

    fs::write(&crontab, "no schedule\n").expect("write the crontab");
    until_true("the crontab is refused", async || of(&host).crontab_refused.is_some()).await;
    assert_eq!(of(&host).schedules.len(), 2, "the last good version is in force");
    fs::write(&crontab, "0 5 * * * job3 ?id=morning\n").expect("write the crontab");
    until_true("the crontab is in force", async || of(&host).crontab_refused.is_none()).await;
    until_true("so is its schedule", async || of(&host).schedules[0].item.identifier == "morning").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn liveness_shows_the_lock_and_the_last_takeover() {
    let (database, folder) = (TestDatabase::installed().await, tasks_folder());
    install_plugin(folder.path(), "misbehaving");
    let gate = Gate::open();
    let off = taskbay::run(options(&database).tasks(gate.task("other")).liveness(false)).await.expect("it starts");
    assert_eq!(off.host().liveness().map(|shown| shown.lock), Some(LivenessLock::Off));
    let runner = taskbay::run(options(&database).tasks(gate.task("other"))).await.expect("it starts");
    let host = runner.host();
    let shown = || host.liveness().expect("it works");
    until_true("the lock is held", async || shown().lock == LivenessLock::Held).await;
    assert_eq!(shown().last_takeover, None);

    let mut dying = Taskbay::run(&database.url(), folder.path()).spawn();
    let owner = dying.event("worker_ready", |_| true).await["owner"].as_str().expect("a name").to_owned();
    let job = database.add_to_queue("sleep", json!({ "ms": 1_000_000 }), "q").await;
    dying.event("job_started", |line| line["job"] == job).await;
    dying.signal(Signal::KILL);
    dying.ended().await;
    until_true("the jobs are taken over", async || shown().last_takeover.is_some()).await;
    let takeover = shown().last_takeover.expect("it was there");
    assert_eq!((takeover.released.owners.clone(), takeover.released.jobs), (vec![owner], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_shows_its_revision_its_clock_and_an_outage_from_before_the_start() {
    let (cluster, folder, control) = (Cluster::start(&[]).await, tasks_folder(), Control::default());
    install(folder.path(), FILE, &build_labelled(1));
    let host = control.host();
    let options = Options::new().config(cluster.config("jobs", cluster.port())).control(control);
    let options = options.folder(folder.path()).program(env!("CARGO_BIN_EXE_taskbay"));
    cluster.end(End::Fast).await;
    let running = tokio::spawn(taskbay::run(options));
    let shown = || host.database();
    until_true("the outage is known", async || shown().is_some_and(|it| it.unreachable_for.is_some())).await;
    assert_eq!(shown().and_then(|it| it.revision), None);
    // The folder does not wait for the database.
    let first = folder_that(&host, |folder| serving(folder).is_some()).await;
    let build = serving(&first).expect("it serves").to_owned();
    install(folder.path(), FILE, &build_labelled(2));
    folder_that(&host, |folder| serving(folder).is_some_and(|now| now != build)).await;
    assert_eq!(host.state(), HostState::Starting);

    cluster.start_again().await;
    let runner = within(running).await.expect("no panic").expect("it starts");
    until_true("the clock is known", async || shown().is_some_and(|it| it.clock_offset.is_some())).await;
    let database = shown().expect("it works");
    assert!(database.revision.is_some() && database.unreachable_for.is_none(), "{database:?}");
    assert_eq!(database.schema, "graphile_worker");
    let offset = database.clock_offset.expect("it is known");
    assert!(offset.micros.unsigned_abs() <= offset.uncertainty.as_micros() as u64 + 1_000, "one machine: {offset:?}");

    cluster.end(End::Fast).await;
    until_true("the outage is known", async || shown().is_some_and(|it| it.unreachable_for.is_some())).await;
    assert_eq!(host.state(), HostState::Working);
    cluster.start_again().await;
    until_true("it is over", async || shown().is_some_and(|it| it.unreachable_for.is_none())).await;
    within(runner.stop()).await.expect("it was not stopped before");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_show_their_values_and_which_of_them_the_program_has_set() {
    let database = TestDatabase::installed().await;
    let options = options(&database).tasks(Gate::open().task("job3")).concurrency(7);
    let runner = taskbay::run(options).await.expect("it starts");
    let settings = runner.host().settings();
    let setting = |section: &str, key: &str| settings.iter().find(|one| one.section == section && one.key == key);
    let concurrency = setting("worker", "concurrency").expect("it is shown");
    assert_eq!((&concurrency.value, &concurrency.origin), (&Some(SettingValue::Count(7)), &Origin::Program));
    assert_eq!(setting("worker", "poll_interval").expect("it is shown").origin, Origin::Default);
    assert!(setting("plugins.default", "timeout").is_some());
    assert!(setting("tasks", "directory").is_none(), "there is no folder");
}
