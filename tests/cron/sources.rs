//! Where schedules come from, and how they come and go.

use std::{fs, os::unix::fs::symlink};

use taskbay::{
    cron::PluginSchedule,
    crontab::CronItem,
    events::{Event, Events},
};

use super::{Host, Setup, at};
use crate::harness::{plugins::tasks_folder, postgres::TestDatabase, program::Taskbay};

fn declared(plugin: &str, task: &str, schedule: &str) -> PluginSchedule {
    PluginSchedule { plugin: plugin.to_owned(), task: task.to_owned(), schedule: schedule.to_owned() }
}

/// What was said of schedules that do not count.
fn left_out(events: &[Event]) -> Vec<(String, String, String)> {
    let overridden = |event: &Event| match event {
        Event::ScheduleOverridden { identifier, kept, left_out } => {
            Some((identifier.clone(), kept.clone(), left_out.clone()))
        }
        _ => None,
    };
    events.iter().filter_map(overridden).collect()
}

impl Host {
    fn write(&self, crontab: &str) {
        let beside = self.setup.folder.path().join(".new");
        fs::write(&beside, crontab).unwrap();
        fs::rename(beside, self.setup.file()).unwrap();
    }
}

#[tokio::test]
async fn a_changed_crontab_is_in_force_from_the_next_minute_on() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T10:00:30Z").crontab("* * * * * old\n* * * * * kept").start(&database).await;
    host.write("* * * * * kept\n* * * * * new");
    assert_eq!(host.changed().await, (vec!["new".to_owned()], vec!["old".to_owned()]));
    host.clock.set("2021-01-01T10:01:00Z");
    host.scheduled("2021-01-01T10:01Z").await;
    // Written over in place this time.
    fs::write(host.setup.file(), "* * * * * kept ?priority=7").unwrap();
    assert_eq!(host.changed().await, (vec![], vec!["new".to_owned()]));
    host.clock.set("2021-01-01T10:02:00Z");
    host.scheduled("2021-01-01T10:02Z").await;
    assert_eq!(database.minutes_of("old").await, [""; 0]);
    assert_eq!(database.minutes_of("new").await, ["10:01"]);
    assert_eq!(database.minutes_of("kept").await, ["10:01", "10:02"]);
    assert_eq!(database.jobs().await.iter().map(|job| job.priority).max(), Some(7));
    assert_eq!(database.known("new").await, Some((at("2021-01-01T10:00:30Z"), Some(at("2021-01-01T10:01Z")))));
}

#[tokio::test]
async fn a_crontab_may_come_later_and_go_again() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T10:00:30Z").start(&database).await;
    host.write("* * * * * here");
    host.changed().await;
    host.clock.set("2021-01-01T10:01:00Z");
    host.scheduled("2021-01-01T10:01Z").await;
    fs::remove_file(host.setup.file()).unwrap();
    let (event, _) = host.event(|event| matches!(event, Event::CrontabRemoved { .. })).await;
    assert!(matches!(event, Event::CrontabRemoved { items: 1, .. }), "{event:?}");
    assert_eq!(host.changed().await, (vec![], vec!["here".to_owned()]));
    host.clock.set("2021-01-01T10:05:00Z");
    host.write("* * * * * here");
    host.changed().await;
    host.clock.set("2021-01-01T10:06:00Z");
    assert_eq!(host.scheduled("2021-01-01T10:06Z").await, []);
    assert_eq!(database.minutes_of("here").await, ["10:01", "10:06"]);
}

#[tokio::test]
async fn a_schedule_that_returns_with_fill_goes_by_what_is_known_of_it() {
    let database = TestDatabase::installed().await;
    database.make_known("back", "2021-01-01T00:00:00Z", Some("2021-01-01T10:00:00Z")).await;
    let mut host = Setup::at("2021-01-01T10:03:30Z").start(&database).await;
    host.write("* * * * * back ?fill=1h\n* * * * * fresh ?fill=1h");
    host.changed().await;
    host.clock.set("2021-01-01T10:04:00Z");
    host.scheduled("2021-01-01T10:04Z").await;
    assert_eq!(database.minutes_of("back").await, ["10:01", "10:02", "10:03", "10:04"]);
    assert_eq!(database.minutes_of("fresh").await, ["10:04"]);
}

#[tokio::test]
async fn a_bad_version_leaves_the_one_before_in_force() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T10:00:30Z").crontab("* * * * * good").start(&database).await;
    host.write("* * * * * other\n61 * * * * bad\n\n* * * worse");
    let (event, _) = host.event(|event| matches!(event, Event::CrontabRefused { .. })).await;
    let Event::CrontabRefused { reason, in_force: 1, .. } = event else { panic!("{event:?}") };
    assert!(reason.contains("line 2") && reason.contains("line 4") && !reason.contains('\n'), "{reason}");
    fs::remove_file(host.setup.file()).unwrap();
    fs::create_dir(host.setup.file()).unwrap();
    let (event, _) = host.event(|event| matches!(event, Event::CrontabRefused { .. })).await;
    assert!(matches!(&event, Event::CrontabRefused { reason, .. } if reason == "it is not a file"), "{event:?}");
    host.clock.set("2021-01-01T10:01:00Z");
    host.scheduled("2021-01-01T10:01Z").await;
    assert_eq!(database.minutes_of("good").await, ["10:01"]);
}

#[tokio::test]
async fn a_crontab_behind_swapped_links_is_followed() {
    let database = TestDatabase::installed().await;
    let setup = Setup::at("2021-01-01T10:00:30Z");
    let folder = setup.folder.path().to_owned();
    for (version, text) in [("..1", "* * * * * first"), ("..2", "* * * * * second")] {
        fs::create_dir(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("crontab"), text).unwrap();
    }
    symlink("..1", folder.join("..data")).unwrap();
    symlink("..data/crontab", folder.join("crontab")).unwrap();
    let mut host = setup.start(&database).await;
    symlink("..2", folder.join("..new")).unwrap();
    fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
    assert_eq!(host.changed().await, (vec!["second".to_owned()], vec!["first".to_owned()]));
}

#[tokio::test]
async fn plugins_bring_their_schedules_and_take_them_along() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T10:00:30Z").start(&database).await;
    host.setup.plugins.send_replace(vec![declared("p", "mail", "* * * * * ?id=often {x: 1}")]);
    assert_eq!(host.changed().await, (vec!["often".to_owned()], vec![]));
    host.clock.set("2021-01-01T10:01:00Z");
    host.scheduled("2021-01-01T10:01Z").await;
    host.setup.plugins.send_replace(vec![]);
    assert_eq!(host.changed().await, (vec![], vec!["often".to_owned()]));
    host.clock.set("2021-01-01T10:02:00Z");
    host.setup.plugins.send_replace(vec![declared("p", "mail", "* * * * *")]);
    assert_eq!(host.changed().await, (vec!["mail".to_owned()], vec![]));
    host.clock.set("2021-01-01T10:03:00Z");
    host.scheduled("2021-01-01T10:03Z").await;
    assert_eq!(database.minutes_of("mail").await, ["10:01", "10:03"]);
}

#[tokio::test]
async fn of_two_schedules_with_one_id_the_crontab_counts_then_the_program_then_the_first_plugin() {
    let database = TestDatabase::installed().await;
    let item = |task: &str, id: &str| CronItem::new(task, "* * * * *").unwrap().identifier(id).unwrap();
    let mut setup = Setup::at("2021-01-01T10:00:30Z").crontab("* * * * * of_file ?id=one");
    setup.items = vec![item("of_program", "one"), item("of_program", "two")];
    setup.plugins.send_replace(vec![
        declared("b", "of_b", "* * * * * ?id=three"),
        declared("a", "of_a", "* * * * * ?id=three"),
        declared("a", "of_a", "* * * * * ?id=two"),
    ]);
    let mut host = setup.begin(&database);
    let (_, before) = host.event(|event| matches!(event, Event::CronStarted { items: 3, .. })).await;
    let text = |texts: [&str; 3]| (texts[0].to_owned(), texts[1].to_owned(), texts[2].to_owned());
    let expected = [
        text(["one", "the crontab", "the program's settings"]),
        text(["two", "the program's settings", "plugin a"]),
        text(["three", "plugin a", "plugin b"]),
    ];
    assert_eq!(left_out(&before), expected);
    host.clock.set("2021-01-01T10:01:00Z");
    host.scheduled("2021-01-01T10:01Z").await;
    let tasks: Vec<String> = database.scheduled().await.into_iter().map(|job| job.task).collect();
    assert_eq!(tasks, ["of_a", "of_file", "of_program"]);

    // The crontab gives its id up; what was said is not said again.
    host.write("");
    host.event(|event| matches!(event, Event::CrontabLoaded { items: 0, .. })).await;
    host.clock.set("2021-01-01T10:02:00Z");
    let (_, before) = host.event(|event| matches!(event, Event::CronScheduled { .. })).await;
    assert_eq!(left_out(&before), []);
    assert_eq!(database.minutes_of("of_program").await, ["10:01", "10:02", "10:02"]);
}

#[tokio::test]
async fn a_bad_schedule_of_a_plugin_stops_no_other() {
    let database = TestDatabase::installed().await;
    let setup = Setup::at("2021-01-01T10:00:30Z").crontab("* * * * * of_file");
    setup.plugins.send_replace(vec![declared("a", "bad", "* * *"), declared("b", "good", "* * * * *")]);
    let mut host = setup.begin(&database);
    let (event, _) = host.event(|event| matches!(event, Event::PluginScheduleRefused { .. })).await;
    assert!(matches!(&event, Event::PluginScheduleRefused { plugin, .. } if plugin == "a"), "{event:?}");
    host.clock.set("2021-01-01T10:01:00Z");
    host.scheduled("2021-01-01T10:01Z").await;
    assert_eq!(database.scheduled().await.len(), 2);
}

#[tokio::test]
async fn the_start_is_refused_with_a_bad_crontab_unless_that_is_tolerated() {
    let database = TestDatabase::installed().await;
    let bad = "61 * * * * bad\n* * * * * good\n* * * worse\n";
    let mut setup = Setup::at("2021-01-01T10:00:30Z").crontab(bad);
    let error = setup.open(&database, &Events::default()).unwrap_err().to_string();
    assert!(error.contains("\n  line 1, ") && error.contains("\n  line 3, ") && !error.contains("line 2"), "{error}");
    setup.tolerate_broken = true;
    setup.plugins.send_replace(vec![declared("p", "other", "* * * * *")]);
    let mut host = setup.begin(&database);
    host.event(|event| matches!(event, Event::CrontabRefused { in_force: 0, .. })).await;
    host.clock.set("2021-01-01T10:01:00Z");
    host.scheduled("2021-01-01T10:01Z").await;
    host.write("* * * * * good");
    host.changed().await;
    host.clock.set("2021-01-01T10:02:00Z");
    host.scheduled("2021-01-01T10:02Z").await;
    assert_eq!(database.minutes_of("good").await, ["10:02"]);
    assert_eq!(database.minutes_of("other").await, ["10:01", "10:02"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_reads_the_crontab_of_its_folder_and_refuses_a_bad_one() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    let run = |crontab: &str| {
        let host = Taskbay::run(&database.url(), folder.path());
        fs::write(host.home().join("crontab"), crontab).unwrap();
        host
    };
    let host = run("0 4 29 2 * leap").spawn();
    assert_eq!(host.event("crontab_loaded", |_| true).await["items"], 1);
    host.event("cron_started", |line| line["items"] == 1).await;
    host.stop().await;
    assert!(database.known("leap").await.is_some());

    let output = run("0 4 * * * fine\n61 * * * * bad").output();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("line 2, column 1"), "{said}");

    let host = run("61 * * * * bad").arg("--watch").spawn();
    host.event("crontab_refused", |line| line["level"] == "ERROR").await;
    host.event("cron_started", |_| true).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_runs_once_does_not_look_at_schedules() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    let host = Taskbay::run(&database.url(), folder.path()).arg("--once");
    fs::write(host.home().join("crontab"), "not a line").unwrap();
    let mut host = host.spawn();
    assert!(host.ended().await.success());
    assert!(host.lines().iter().all(|line| !line["event"].as_str().unwrap_or_default().starts_with("cron")));
}
