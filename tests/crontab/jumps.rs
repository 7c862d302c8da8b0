//! Days on which wall clocks jump: each expected time is written out.

use taskbay::crontab::parse_schedule;

use super::{item, moment};

/// The times of a schedule in a zone and a stretch of time, in UTC.
#[track_caller]
fn times(schedule: &str, zone: &str, from: &str, to: &str, expected: &[&str]) {
    let item = parse_schedule("t", &format!("{schedule} ?tz={zone}")).expect("right");
    let (from, to) = (moment(from), moment(to));
    let times: Vec<_> = item.times(from, to).collect();
    let expected: Vec<_> = expected.iter().map(|time| moment(time)).collect();
    assert_eq!(times, expected, "{schedule} in {zone}");
    let mut single = Vec::new();
    let mut next = item.next_after(from - std::time::Duration::from_nanos(1));
    while let Some(time) = next.filter(|time| *time < to) {
        assert!(item.matches(time), "{time}");
        single.push(time);
        next = item.next_after(time);
    }
    assert_eq!(single, expected, "one after the other: {schedule} in {zone}");
}

const SPRING: (&str, &str) = ("2026-03-29T00:00Z", "2026-03-29T03:00Z");
const AUTUMN: (&str, &str) = ("2026-10-25T00:00Z", "2026-10-25T03:00Z");

#[test]
fn a_fixed_hour_that_is_skipped_fires_at_the_jump() {
    // 2:00 to 3:00 is skipped at 01:00 UTC.
    let (from, to) = SPRING;
    times("30 2 * * *", "Europe/Berlin", from, to, &["2026-03-29T01:00Z"]);
    times("*/15 2 * * *", "Europe/Berlin", from, to, &["2026-03-29T01:00Z"]);
    times("0 2,3 * * *", "Europe/Berlin", from, to, &["2026-03-29T01:00Z"]);
    times("30 2,3 * * *", "Europe/Berlin", from, to, &["2026-03-29T01:00Z", "2026-03-29T01:30Z"]);
    times("30 1,4 * * *", "Europe/Berlin", from, to, &["2026-03-29T00:30Z", "2026-03-29T02:30Z"]);
    times("30 2 29 3 *", "Europe/Berlin", from, to, &["2026-03-29T01:00Z"]);
    times("30 2 28 3 *", "Europe/Berlin", from, to, &[]);
}

#[test]
fn a_fixed_hour_that_is_shown_twice_fires_the_first_time() {
    // 2:00 to 3:00 is shown from 00:00 UTC and again from 01:00 UTC.
    let (from, to) = AUTUMN;
    times("30 2 * * *", "Europe/Berlin", from, to, &["2026-10-25T00:30Z"]);
    times("*/30 2 * * *", "Europe/Berlin", from, to, &["2026-10-25T00:00Z", "2026-10-25T00:30Z"]);
    times("0 2,3 * * *", "Europe/Berlin", from, to, &["2026-10-25T00:00Z", "2026-10-25T02:00Z"]);
}

#[test]
fn every_hour_is_every_real_hour() {
    let (from, to) = SPRING;
    let every = ["2026-03-29T00:30Z", "2026-03-29T01:30Z", "2026-03-29T02:30Z"];
    for hours in ["*", "*/1", "0-23"] {
        times(&format!("30 {hours} * * *"), "Europe/Berlin", from, to, &every);
    }
    times("0 */2 * * *", "Europe/Berlin", from, to, &["2026-03-29T02:00Z"]);
    let (from, to) = AUTUMN;
    let every = ["2026-10-25T00:30Z", "2026-10-25T01:30Z", "2026-10-25T02:30Z"];
    for hours in ["*", "*/1", "0-23"] {
        times(&format!("30 {hours} * * *"), "Europe/Berlin", from, to, &every);
    }
    times("0 */2 * * *", "Europe/Berlin", from, to, &["2026-10-25T00:00Z", "2026-10-25T01:00Z"]);
    assert_eq!(item("* * * * * t ?tz=Europe/Berlin").times(moment(from), moment(to)).count(), 180);
}

#[test]
fn half_an_hour_is_a_jump_as_any_other() {
    // Lord Howe: 2:00 becomes 2:30 on 2026-10-03T15:30Z, and 2:00 becomes 1:30 on 2026-04-04T15:00Z.
    let zone = "Australia/Lord_Howe";
    let spring = ("2026-10-03T14:30Z", "2026-10-03T17:00Z");
    times("15 2 * * *", zone, spring.0, spring.1, &["2026-10-03T15:30Z"]);
    times("45 2 * * *", zone, spring.0, spring.1, &["2026-10-03T15:45Z"]);
    times("15 * * * *", zone, spring.0, spring.1, &["2026-10-03T14:45Z", "2026-10-03T16:15Z"]);
    let autumn = ("2026-04-04T14:00Z", "2026-04-04T16:30Z");
    times("45 1 * * *", zone, autumn.0, autumn.1, &["2026-04-04T14:45Z"]);
    times("45 * * * *", zone, autumn.0, autumn.1, &["2026-04-04T14:45Z", "2026-04-04T15:15Z", "2026-04-04T16:15Z"]);
}

#[test]
fn a_day_that_is_skipped_fires_once_at_its_end() {
    // Samoa went from the end of 2011-12-29 to the beginning of 2011-12-31, at 10:00 UTC.
    let (from, to) = ("2011-12-29T10:00Z", "2011-12-31T10:00Z");
    times(
        "0 9,17 * * *",
        "Pacific/Apia",
        from,
        to,
        // 9:00 and 17:00 of the 29th, the 30th at once, 9:00 and 17:00 of the 31st.
        &["2011-12-29T19:00Z", "2011-12-30T03:00Z", "2011-12-30T10:00Z", "2011-12-30T19:00Z", "2011-12-31T03:00Z"],
    );
    times("0 9 30 12 *", "Pacific/Apia", from, to, &["2011-12-30T10:00Z"]);
    times("0 */12 30 12 *", "Pacific/Apia", from, to, &[]);
}

#[test]
fn jumps_at_midnight_belong_to_their_days() {
    // Cairo: midnight became 1:00 at the beginning of Friday 2026-04-24, and became 23:00 of Thursday again on 2026-10-29.
    let (from, to) = ("2026-04-23T20:00Z", "2026-04-24T02:00Z");
    times("0 0 * * 5", "Africa/Cairo", from, to, &["2026-04-23T22:00Z"]);
    times("0 0 24 4 *", "Africa/Cairo", from, to, &["2026-04-23T22:00Z"]);
    times("0 0 * * 4", "Africa/Cairo", from, to, &[]);
    let (from, to) = ("2026-10-29T19:00Z", "2026-10-30T02:00Z");
    times("30 23 * * *", "Africa/Cairo", from, to, &["2026-10-29T20:30Z"]);
    times("0 0 * * *", "Africa/Cairo", from, to, &["2026-10-29T22:00Z"]);
    times("30 * * * 4", "Africa/Cairo", from, to, &["2026-10-29T19:30Z", "2026-10-29T20:30Z", "2026-10-29T21:30Z"]);
}

#[test]
fn clocks_that_are_seconds_off_are_read_by_the_minute() {
    // Liberia was 44 minutes and 30 seconds behind until 1972-01-07, when it went to UTC.
    let (from, to) = ("1972-01-06T23:00Z", "1972-01-07T01:00Z");
    times("0 0 * * *", "Africa/Monrovia", from, to, &["1972-01-07T00:45Z"]);
    assert_eq!(item("* * * * * t ?tz=Africa/Monrovia").times(moment(from), moment(to)).count(), 120);
}

#[test]
fn without_a_zone_it_is_utc() {
    let four = item("0 4 * * * t");
    let times: Vec<_> = four.times(moment("2026-03-28T00:00Z"), moment("2026-03-31T00:00Z")).collect();
    assert_eq!(times, ["2026-03-28T04:00Z", "2026-03-29T04:00Z", "2026-03-30T04:00Z"].map(moment));
}

#[test]
fn the_start_belongs_to_a_stretch_and_its_end_does_not() {
    let hourly = item("0 * * * * t");
    let count = |from: &str, to: &str| hourly.times(moment(from), moment(to)).count();
    assert_eq!(count("2026-01-01T01:00Z", "2026-01-01T02:00Z"), 1);
    assert_eq!(count("2026-01-01T01:00:00.000000001Z", "2026-01-01T02:00Z"), 0);
    assert_eq!(count("2026-01-01T01:00Z", "2026-01-01T02:00:00.000000001Z"), 2);
    assert_eq!(count("2026-01-01T02:00Z", "2026-01-01T01:00Z"), 0);
    assert_eq!(count("1969-12-31T22:59:59.5Z", "1970-01-01T00:00:00.5Z"), 2);
    assert!(hourly.matches(moment("2026-01-01T01:00:59.9Z")) && !hourly.matches(moment("2026-01-01T00:59:59.9Z")));
    assert_eq!(hourly.next_after(moment("2026-01-01T01:00Z")), Some(moment("2026-01-01T02:00Z")));
    assert_eq!(hourly.next_after(moment("2026-01-01T00:59:59.9Z")), Some(moment("2026-01-01T01:00Z")));
}

#[test]
fn what_is_far_or_never_is_found_out() {
    assert_eq!(
        item("0 0 29 2 * t").next_after(moment("2096-02-29T00:00Z")),
        Some(moment("2104-02-29T00:00Z")),
        "2100 is no leap year"
    );
    for never in ["0 0 30 2 * t", "0 0 31 2,4,6,9,11 * t", "* * 30-31 2 * t ?tz=Europe/Berlin"] {
        assert_eq!(item(never).next_after(moment("2026-01-01T00:00Z")), None, "{never}");
        assert_eq!(item(never).times(jiff::Timestamp::MIN, jiff::Timestamp::MAX).next(), None, "{never}");
    }
    for zone in ["UTC", "Europe/Berlin", "Pacific/Apia", "Etc/GMT-14", "Etc/GMT+12"] {
        for schedule in ["* * * * *", "0 4 * * *"] {
            let item = item(&format!("{schedule} t ?tz={zone}"));
            assert_eq!(item.next_after(jiff::Timestamp::MAX), None);
            assert!(item.next_after(jiff::Timestamp::MIN).is_some());
            item.matches(jiff::Timestamp::MIN);
            item.matches(jiff::Timestamp::MAX);
        }
    }
}
