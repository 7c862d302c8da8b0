//! Lines that are right: graphile-worker's own cases, and ours.

use std::time::Duration;

use serde_json::json;
use taskbay::crontab::{CronItem, KeyMode, Pattern, When, parse_crontab, parse_schedule};

use super::{item, moment};

fn pattern(item: &CronItem) -> &Pattern {
    match &item.when {
        When::Pattern(pattern) => pattern,
        When::Function(_) => panic!("a line has a pattern"),
    }
}

#[test]
fn a_file_with_everything_in_it_is_read() {
    let text = "\u{feff}# min hour dom mon dow task\r
\r
* * * * * simple
0 4 * * * at_four
0 4 * * 0 sundays
0 4 * * 7 sundays ?id=sundays_by_seven
0 4 * * 2 tuesdays {isTuesday: true}
*/10,7,56-59 1 1 1 1 combined ?id=all_of_it&fill=4w3d2h1m&max=3&queue=my_queue&priority=3 {myExtraPayload:{stuff:\"here # not a comment\"}}
     *      *      *      *      *      lots_of_spaces     ?id=spaces     {   foo:   3   }   \t
* * * * * with_key ?jobKey=my_key
* * * * * with_key ?id=with_mode&jobKey=my_key&jobKeyMode=preserve_run_at
* * * * * nested/in:folders
  # indented
* * * * * nested/in:folders ?id=nested_again";
    let items = parse_crontab(text).expect("all of it is right");

    let names: Vec<(&str, &str)> = items.iter().map(|item| (item.task.as_str(), item.identifier.as_str())).collect();
    assert_eq!(
        names,
        [
            ("simple", "simple"),
            ("at_four", "at_four"),
            ("sundays", "sundays"),
            ("sundays", "sundays_by_seven"),
            ("tuesdays", "tuesdays"),
            ("combined", "all_of_it"),
            ("lots_of_spaces", "spaces"),
            ("with_key", "with_key"),
            ("with_key", "with_mode"),
            ("nested/in:folders", "nested/in:folders"),
            ("nested/in:folders", "nested_again"),
        ]
    );
    for sundays in &items[2..4] {
        assert!(pattern(sundays).weekdays().contains(0) && !pattern(sundays).weekdays().contains(7));
        assert!((1..7).all(|day| !pattern(sundays).weekdays().contains(day)));
    }
    assert_eq!(json!(items[4].payload), json!({"isTuesday": true}));
    let combined = &items[5];
    let minutes: Vec<u8> = (0..60).filter(|minute| pattern(combined).minutes().contains(*minute)).collect();
    assert_eq!(minutes, [0, 7, 10, 20, 30, 40, 50, 56, 57, 58, 59]);
    assert_eq!(combined.options.backfill, Duration::from_secs((((4 * 7 + 3) * 24 + 2) * 60 + 1) * 60));
    assert_eq!(combined.options.max_attempts, Some(3));
    assert_eq!(combined.options.queue_name.as_deref(), Some("my_queue"));
    assert_eq!(combined.options.priority, Some(3));
    assert_eq!(json!(combined.payload), json!({"myExtraPayload": {"stuff": "here # not a comment"}}));
    assert_eq!(json!(items[6].payload), json!({"foo": 3}));
    assert_eq!(items[7].options.job_key.as_deref(), Some("my_key"));
    assert_eq!(items[7].options.job_key_mode, None);
    assert_eq!(items[8].options.job_key_mode, Some(KeyMode::PreserveRunAt));
    assert_eq!(items[0].options, Default::default());
    assert!(items[0].payload.is_empty());
}

#[test]
fn every_minute_is_every_minute() {
    let every = item("* * * * * t");
    for time in ["2026-01-01T00:00Z", "2026-02-28T23:59Z", "2024-02-29T12:34Z"] {
        assert!(every.matches(moment(time)), "{time}");
    }
}

#[test]
fn days_of_the_week_can_be_a_range() {
    let weekend = item("* * * * 5-6 t");
    assert!(!weekend.matches(moment("2026-01-01T12:00Z")));
    assert!(weekend.matches(moment("2026-01-02T12:00Z")));
    assert!(weekend.matches(moment("2026-01-03T12:00Z")));
    assert!(!weekend.matches(moment("2026-01-04T12:00Z")));
    let to_sunday = item("* * * * 6-7 t");
    assert!(to_sunday.matches(moment("2026-01-04T12:00Z")) && !to_sunday.matches(moment("2026-01-05T12:00Z")));
    assert!(pattern(&item("* * * * 0-7 t")).weekdays().is_full());
}

#[test]
fn day_of_the_month_or_day_of_the_week_is_enough_if_both_are_restricted() {
    let either = item("0-5 15 3-4 7 0-2 t");
    // A Friday and a Saturday by their date, a Sunday and a Tuesday by their day, a Wednesday by neither.
    for (time, due) in [
        ("2026-07-03T15:00Z", true),
        ("2026-07-04T15:05Z", true),
        ("2026-07-05T15:00Z", true),
        ("2026-07-07T15:00Z", true),
        ("2026-07-08T15:00Z", false),
        ("2026-07-03T15:06Z", false),
        ("2026-07-03T14:00Z", false),
        ("2026-08-03T15:00Z", false),
    ] {
        assert_eq!(either.matches(moment(time)), due, "{time}");
    }
    // Fields that hold all days are no restriction, however they are written.
    for all in ["*", "1-31", "*/1", "1-30,31"] {
        let mondays = item(&format!("0 0 {all} * 1 t"));
        assert!(mondays.matches(moment("2026-07-06T00:00Z")) && !mondays.matches(moment("2026-07-07T00:00Z")), "{all}");
    }
}

#[test]
fn steps_count_from_the_smallest_number() {
    let days = item("0 0 */10 */5 * t");
    let field = |contains: &dyn Fn(u8) -> bool| (0..60).filter(|number| contains(*number)).collect::<Vec<u8>>();
    assert_eq!(field(&|number| pattern(&days).dates().contains(number)), [1, 11, 21, 31]);
    assert_eq!(field(&|number| pattern(&days).months().contains(number)), [1, 6, 11]);
    let rare = item("*/99999999999999999999 007 * * */7 t");
    assert_eq!(field(&|number| pattern(&rare).minutes().contains(number)), [0]);
    assert_eq!(field(&|number| pattern(&rare).hours().contains(number)), [7]);
    assert_eq!(field(&|number| pattern(&rare).weekdays().contains(number)), [0]);
}

#[test]
fn options_are_decoded() {
    let encoded = item("* * * * * t ?jobKey=a+b%20c%26d%3D%C3%A9&tz=Etc/GMT%2B5&&priority=-32768");
    assert_eq!(encoded.options.job_key.as_deref(), Some("a b c&d=é"));
    assert_eq!(encoded.options.priority, Some(i16::MIN));
    // A bare plus sign means a space, which no zone has in its name.
    let plus = item("* * * * * t ?tz=Etc/GMT+5");
    for zoned in [&encoded, &plus] {
        assert_eq!(zoned.options.time_zone.as_ref().and_then(|zone| zone.iana_name()), Some("Etc/GMT+5"));
    }
    let lower = item("* * * * * t ?tz=europe/berlin");
    assert_eq!(lower.options.time_zone.as_ref().and_then(|zone| zone.iana_name()), Some("Europe/Berlin"));
}

#[test]
fn numbers_in_payloads_are_kept() {
    let numbers = item(
        "* * * * * t {id: 9007199254740993, max: 18446744073709551615, min: -9223372036854775808, hex: 0xff, plus: +1, \
         whole: 1e3, tenth: .1, huge: 1e300, text: '123456789012345678901234567890', zero: -0.0, /* 99999999999999999999 */ }",
    );
    assert_eq!(
        serde_json::to_string(&numbers.payload).expect("JSON"),
        r#"{"hex":255,"huge":1e+300,"id":9007199254740993,"max":18446744073709551615,"min":-9223372036854775808,"plus":1,"tenth":0.1,"text":"123456789012345678901234567890","whole":1000,"zero":0}"#
    );
}

#[test]
fn a_schedule_beside_its_task_is_a_line_without_the_task() {
    let declared = parse_schedule("mail/send", "0 4 * * * ?fill=1d {to: 'all'}").expect("right");
    assert_eq!(declared, item("0 4 * * * mail/send ?fill=1d {to: 'all'}"));
    let error = parse_schedule("mail/send", "0 4 * * * mail/send").expect_err("the task is given apart");
    assert_eq!(
        error.to_string(),
        "column 11: `mail/send` is not understood; what follows is `?options` and then a `{payload}`"
    );
    let error = parse_schedule("2nd", "0 4 * * *").expect_err("no name");
    assert!(error.to_string().starts_with("task `2nd`: it begins with neither"), "{error}");
}

#[test]
fn items_made_in_code_are_checked_as_lines_are() {
    let made = CronItem::new("report", "0 4 * * *")
        .and_then(|item| item.identifier("nightly"))
        .and_then(|item| item.backfill(Duration::from_millis(90_500)))
        .and_then(|item| item.max_attempts(2))
        .and_then(|item| item.queue_name("a:b"))
        .and_then(|item| item.job_key("k k"))
        .and_then(|item| item.time_zone("Asia/Tokyo"))
        .expect("all good")
        .job_key_mode(KeyMode::Replace)
        .priority(-1);
    let line = "0 4 * * * report ?id=nightly&fill=1m30s&max=2&queue=a:b&jobKey=k%20k&jobKeyMode=replace&priority=-1&tz=Asia/Tokyo";
    assert_eq!(made.to_string(), line);
    assert_eq!(item(line), made);

    let item = || CronItem::new("report", "0 4 * * *").expect("right");
    for (refused, word) in [
        (item().identifier("a b"), "id="),
        (item().backfill(Duration::from_secs(u64::MAX)), "fill="),
        (item().max_attempts(0), "max="),
        (item().queue_name(""), "queue="),
        (item().job_key(""), "jobKey"),
        (item().job_key(&"k".repeat(513)), "jobKey="),
        (item().time_zone("Mars/Olympus"), "tz="),
        (CronItem::new("report", "daily"), "time fields"),
        (CronItem::from_function("", |_| true), "task"),
    ] {
        let error = refused.expect_err(word).to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_function_of_the_time_can_be_a_schedule() {
    let last_days = CronItem::from_function("t", |at| at.month == 2 && at.date == 29 && at.dow == 4 && at.hour == 1)
        .and_then(|item| item.time_zone("Europe/Berlin"))
        .expect("right");
    let times: Vec<_> = last_days.times(moment("2024-02-01T00:00Z"), moment("2024-03-31T00:00Z")).collect();
    assert_eq!(times.len(), 60);
    assert_eq!(times[0], moment("2024-02-29T00:00Z"));
    assert!(last_days.matches(moment("2024-02-29T00:59Z")) && !last_days.matches(moment("2024-02-29T01:00Z")));
    assert_eq!(last_days.next_after(moment("2024-03-01T00:00Z")), None);
}

#[test]
fn empty_files_and_comments_have_no_items() {
    for text in ["", "\n\n", "# nothing", " \t # * * * * * task\r\n", "\u{feff}", "\u{feff}# a"] {
        assert_eq!(parse_crontab(text).expect("right"), [], "{text:?}");
    }
}
