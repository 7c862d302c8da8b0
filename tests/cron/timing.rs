//! When schedules fire, whatever the clock does.

use taskbay::events::Event;

use super::{Setup, at};
use crate::harness::postgres::TestDatabase;

const EVERY_FOUR_HOURS: &str = "0 */4 * * * do_it";

#[tokio::test]
async fn a_job_is_added_when_its_minute_comes_and_not_before() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T00:00:01Z").crontab(EVERY_FOUR_HOURS).start(&database).await;
    host.clock.set("2021-01-01T03:00:01Z");
    // Stays before the minute in small steps.
    for second in 30..60 {
        host.clock.set(&format!("2021-01-01T03:59:{second}Z"));
        tokio::task::yield_now().await;
    }
    assert_eq!(database.scheduled().await, []);
    host.clock.set("2021-01-01T04:00:01Z");
    assert_eq!(host.scheduled("2021-01-01T04:00Z").await, []);
    let jobs = database.scheduled().await;
    assert_eq!(jobs.len(), 1);
    assert_eq!((jobs[0].run_at, jobs[0].backfilled), (at("2021-01-01T04:00Z"), false));
    assert_eq!(jobs[0].ts, "2021-01-01T04:00:00.000Z");
    assert_eq!(database.known("do_it").await, Some((at("2021-01-01T00:00:01Z"), Some(at("2021-01-01T04:00Z")))));
}

#[tokio::test]
async fn the_process_clock_decides_although_the_database_is_years_ahead() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T03:59:50Z").crontab(EVERY_FOUR_HOURS).start(&database).await;
    host.clock.set("2021-01-01T03:59:55Z");
    assert_eq!(database.scheduled().await, []);
    host.clock.set("2021-01-01T04:00:01Z");
    host.scheduled("2021-01-01T04:00Z").await;
    assert_eq!(database.scheduled().await.len(), 1);
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_make_anything_happen_twice() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T03:59:00Z").crontab(EVERY_FOUR_HOURS).start(&database).await;
    host.clock.set("2021-01-01T04:00:01Z");
    host.scheduled("2021-01-01T04:00Z").await;
    host.clock.set("2021-01-01T03:00:00Z");
    host.woken_early().await;
    host.clock.set("2021-01-01T04:00:01Z");
    host.clock.set("2021-01-01T08:00:00Z");
    assert_eq!(host.scheduled("2021-01-01T08:00Z").await, []);
    assert_eq!(database.minutes_of("do_it").await, ["04:00", "08:00"]);
}

#[tokio::test]
async fn a_host_that_starts_with_a_clock_behind_does_not_repeat_what_others_did() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T04:00:00Z").crontab(EVERY_FOUR_HOURS).start(&database).await;
    host.scheduled("2021-01-01T04:00Z").await;
    host.stop().await;
    let mut host = Setup::at("2021-01-01T03:59:30Z").crontab(EVERY_FOUR_HOURS).start(&database).await;
    host.clock.set("2021-01-01T04:00:00Z");
    host.scheduled("2021-01-01T04:00Z").await;
    assert_eq!(database.minutes_of("do_it").await, ["04:00"]);
}

#[tokio::test]
async fn a_clock_that_jumps_to_and_fro_within_a_minute_changes_nothing() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T03:58:50Z").crontab(EVERY_FOUR_HOURS).start(&database).await;
    for _ in 0..10 {
        host.clock.set("2021-01-01T03:59:30Z");
        host.clock.set("2021-01-01T03:59:00Z");
        host.woken_early().await;
    }
    assert_eq!(database.scheduled().await, []);
    host.clock.set("2021-01-01T04:00:01Z");
    assert_eq!(host.scheduled("2021-01-01T04:00Z").await, []);
    assert_eq!(database.minutes_of("do_it").await, ["04:00"]);
}

#[tokio::test]
async fn under_a_job_key_the_next_time_takes_the_place_of_the_one_before() {
    let database = TestDatabase::installed().await;
    let crontab = format!("{EVERY_FOUR_HOURS} ?jobKey=foo");
    let mut host = Setup::at("2021-01-01T03:59:59Z").crontab(&crontab).start(&database).await;
    host.clock.set("2021-01-01T04:00:01Z");
    host.scheduled("2021-01-01T04:00Z").await;
    let first = database.scheduled().await;
    host.clock.set("2021-01-01T08:00:01Z");
    host.scheduled("2021-01-01T08:00Z").await;
    let second = database.scheduled().await;
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(first[0].id, second[0].id);
    assert_eq!(second[0].ts, "2021-01-01T08:00:00.000Z");
}

#[tokio::test]
async fn minutes_that_went_by_while_the_machine_slept_are_made_up_for_in_their_order() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T10:00:30Z").crontab("*/2 * * * * often").start(&database).await;
    host.clock.set("2021-01-01T10:09:10Z");
    let (event, _) = host.event(|event| matches!(event, Event::CronOverdueTimer { .. })).await;
    let Event::CronOverdueTimer { current, expected } = event else { panic!("{event:?}") };
    assert_eq!((current, expected), (at("2021-01-01T10:09Z"), at("2021-01-01T10:01Z")));
    let before = host.scheduled("2021-01-01T10:08Z").await;
    assert_eq!(before, ["2021-01-01T10:02Z", "2021-01-01T10:04Z", "2021-01-01T10:06Z"].map(at));
    assert!(database.scheduled().await.iter().all(|job| !job.backfilled));
    assert_eq!(database.minutes_of("often").await, ["10:02", "10:04", "10:06", "10:08"]);
}

#[tokio::test]
async fn what_is_more_than_a_day_late_is_left_to_fill() {
    let database = TestDatabase::installed().await;
    let crontab = "30 * * * * hourly\n30 * * * * filled ?fill=7d";
    let mut host = Setup::at("2021-01-01T00:00:00Z").crontab(crontab).start(&database).await;
    host.clock.set("2021-01-04T00:00:00Z");
    host.event(|event| matches!(event, Event::CronTicksGivenUp { .. })).await;
    host.scheduled("2021-01-03T23:30Z").await;
    let jobs = database.scheduled().await;
    let of = |task: &str| jobs.iter().filter(|job| job.task == task).collect::<Vec<_>>();
    assert_eq!(of("hourly").len(), 24);
    assert_eq!(of("hourly")[0].run_at, at("2021-01-03T00:30Z"));
    assert_eq!(of("filled").len(), 72);
    assert_eq!(of("filled").iter().filter(|job| job.backfilled).count(), 48);
}

#[tokio::test]
async fn a_clock_that_was_years_ahead_and_is_set_right_does_not_stop_what_has_not_run_since() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2036-01-01T00:00:30Z").crontab("0 4 * * * daily").start(&database).await;
    host.clock.set("2021-01-01T03:59:00Z");
    host.woken_early().await;
    host.clock.set("2021-01-01T04:00:00Z");
    host.scheduled("2021-01-01T04:00Z").await;
    assert_eq!(database.minutes_of("daily").await, ["04:00"]);
}

#[tokio::test]
async fn a_time_zone_decides_when_its_hours_are() {
    let database = TestDatabase::installed().await;
    let crontab = "0 4 * * * tokyo ?tz=Asia/Tokyo\n0 4 * * * utc";
    let mut host = Setup::at("2021-01-01T18:59:00Z").crontab(crontab).start(&database).await;
    host.clock.set("2021-01-02T04:00:00Z");
    host.scheduled("2021-01-02T04:00Z").await;
    assert_eq!(database.minutes_of("tokyo").await, ["19:00"]);
    assert_eq!(database.minutes_of("utc").await, ["04:00"]);
}
