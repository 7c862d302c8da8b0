//! What is made up for at the start.

use super::{Setup, at};
use crate::harness::postgres::TestDatabase;

#[tokio::test]
async fn a_schedule_that_nobody_knows_is_registered_and_has_missed_nothing() {
    let database = TestDatabase::installed().await;
    let host = Setup::at("2021-01-02T12:00:30.5Z").crontab("0 */4 * * * do_it ?fill=1d").start(&database).await;
    host.stop().await;
    assert_eq!(database.known("do_it").await, Some((at("2021-01-02T12:00:30.5Z"), None)));
    assert_eq!(database.scheduled().await, []);
}

#[tokio::test]
async fn what_was_missed_since_the_last_time_is_made_up_for_within_fill() {
    for (last, expected) in [
        ("2021-01-02T07:00:00Z", &["08:00", "12:00"][..]),
        ("2021-01-01T11:00:00Z", &["16:00", "20:00", "00:00", "04:00", "08:00", "12:00"]),
    ] {
        let database = TestDatabase::installed().await;
        database.make_known("do_it", "2020-12-01T00:00:00Z", Some(last)).await;
        let host = Setup::at("2021-01-02T12:00:30Z").crontab("0 */4 * * * do_it ?fill=1d").start(&database).await;
        host.stop().await;
        assert_eq!(database.minutes_of("do_it").await, expected);
        assert!(database.scheduled().await.iter().all(|job| job.backfilled));
        assert_eq!(database.known("do_it").await.unwrap().1, Some(at("2021-01-02T12:00Z")));
    }
}

#[tokio::test]
async fn fill_reaches_exactly_as_far_as_it_says_and_no_minute_is_added_twice() {
    let start = "2021-01-02T22:59:42Z";
    for (since, last, expected) in [
        ("2021-01-01T00:00:00Z", None, &["22:57", "22:58", "22:59"][..]),
        ("2021-01-01T00:00:00Z", Some("2021-01-02T22:57:00Z"), &["22:58", "22:59"]),
        // Never carried out, but known.
        ("2021-01-02T22:57:30Z", None, &["22:58", "22:59"]),
        ("2021-01-02T22:58:00Z", None, &["22:58", "22:59"]),
        ("2021-01-01T00:00:00Z", Some("2021-01-02T22:59:00Z"), &[]),
        // By a host whose clock is ahead.
        ("2021-01-01T00:00:00Z", Some("2021-01-02T23:30:00Z"), &[]),
    ] {
        let database = TestDatabase::installed().await;
        database.make_known("often", since, last).await;
        let host = Setup::at(start).crontab("* * * * * often ?fill=3m").start(&database).await;
        host.stop().await;
        assert_eq!(database.minutes_of("often").await, expected, "known since {since}, last {last:?}");
    }
}

#[tokio::test]
async fn a_schedule_without_fill_makes_up_for_nothing_and_goes_on_from_the_next_minute() {
    let database = TestDatabase::installed().await;
    database.make_known("often", "2021-01-01T00:00:00Z", Some("2021-01-02T10:00:00Z")).await;
    let mut host = Setup::at("2021-01-02T12:00:30Z").crontab("* * * * * often").start(&database).await;
    host.clock.set("2021-01-02T12:01:00Z");
    host.scheduled("2021-01-02T12:01Z").await;
    assert_eq!(database.minutes_of("often").await, ["12:01"]);
}

#[tokio::test]
async fn under_a_key_that_keeps_its_time_one_job_stands_for_all_that_was_missed() {
    let database = TestDatabase::installed().await;
    database.make_known("often", "2021-01-01T00:00:00Z", None).await;
    let crontab = "* * * * * often ?fill=3m&jobKey=k&jobKeyMode=preserve_run_at";
    let host = Setup::at("2021-01-02T22:59:42Z").crontab(crontab).start(&database).await;
    host.stop().await;
    let jobs = database.scheduled().await;
    assert_eq!(jobs.len(), 1);
    assert_eq!((jobs[0].run_at, jobs[0].ts.as_str()), (at("2021-01-02T22:57Z"), "2021-01-02T22:59:00.000Z"));
}

#[tokio::test]
async fn the_minutes_during_the_start_are_not_lost() {
    let database = TestDatabase::installed().await;
    database.make_known("often", "2021-01-01T00:00:00Z", Some("2021-01-02T12:00:00Z")).await;
    database.set_away(true).await;
    let mut host = Setup::at("2021-01-02T12:02:30Z").crontab("* * * * * often ?fill=1h").begin(&database);
    host.event(|event| matches!(event, taskbay::events::Event::DatabaseTrouble { .. })).await;
    host.clock.set("2021-01-02T12:04:30Z");
    database.set_away(false).await;
    host.scheduled("2021-01-02T12:04Z").await;
    let jobs = database.scheduled().await;
    let seen: Vec<_> = jobs.iter().map(|job| (job.ts[11..16].to_owned(), job.backfilled)).collect();
    let expected = [("12:01", true), ("12:02", true), ("12:03", false), ("12:04", false)];
    assert_eq!(seen, expected.map(|(minute, backfilled)| (minute.to_owned(), backfilled)));
}
