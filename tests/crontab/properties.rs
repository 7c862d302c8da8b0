//! Anything at all can be read or refused, and what is printed can be read again.

use std::time::Duration;

use jiff::tz::TimeZone;
use proptest::{collection::vec, option, prelude::*};
use serde_json::{Map, Value};
use taskbay::crontab::{CronItem, CronOptions, KeyMode, parse_crontab, parse_line, parse_schedule};

use super::by_the_minute::schedule;

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // Whole ones come back without a fraction.
        any::<f64>().prop_filter("JSON has no others", |f| f.is_finite() && f.fract() != 0.0).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 20, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((any::<String>(), inner), 0..5).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn payload() -> impl Strategy<Value = Map<String, Value>> {
    vec((any::<String>(), json()), 0..4).prop_map(|entries| entries.into_iter().collect())
}

prop_compose! {
    fn options()(
        fill in option::of(0_u64..3_153_600_000),
        max_attempts in option::of(1..=i16::MAX),
        queue_name in option::of("[a-zA-Z0-9:_-]{1,128}"),
        job_key in option::of(
            prop_oneof![any::<String>(), "[%0-9A-F+&= ]{1,12}"]
                .prop_filter("taken by the database", |key| !key.is_empty() && !key.contains('\0')),
        ),
        job_key_mode in option::of(prop_oneof![Just(KeyMode::Replace), Just(KeyMode::PreserveRunAt)]),
        priority in option::of(any::<i16>()),
        zone in option::of(prop::sample::select(&["UTC", "Europe/Berlin", "Etc/GMT+5", "America/Port-au-Prince"])),
    ) -> CronOptions {
        CronOptions {
            backfill: Duration::from_secs(fill.unwrap_or(0)),
            max_attempts,
            queue_name,
            priority,
            job_key,
            job_key_mode,
            time_zone: zone.map(|zone| TimeZone::get(zone).expect("a zone")),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn nothing_that_is_written_makes_it_panic(text in any::<String>()) {
        let _ = parse_crontab(&text);
        let _ = parse_schedule(&text, &text);
    }

    #[test]
    fn nothing_that_looks_like_a_line_makes_it_panic(
        text in "[0-9*,/-]{1,6} [0-9*,/a-z?-]{1,4} [0-9L*?]{1,3} (\\*|[0-9]|jan) (\\*|mon|é) ?[a-zé/:?]{0,5} ?\\??[a-zA-Z=&%0-9+é]{0,20} ?(\\{[\\[\\]{}a-z0-9:'\", .eéx/*+-]{0,30}\\}?)?",
    ) {
        match parse_line(&text) {
            Ok(Some(item)) => prop_assert_eq!(parse_line(&item.to_string()).expect("printed"), Some(item)),
            Ok(None) => {}
            Err(error) => {
                // It is one line, and points into the line or right behind it.
                prop_assert!(!error.to_string().contains('\n'));
                prop_assert!(error.column.is_some_and(|column| column <= text.chars().count() + 1), "{}", error);
            }
        }
    }

    #[test]
    fn what_is_printed_is_read_as_the_same(
        schedule in schedule(),
        task in "[a-zA-Z_][a-zA-Z0-9_:/-]{0,20}",
        id in option::of("[a-zA-Z_][a-zA-Z0-9_-]{0,10}"),
        options in options(),
        payload in payload(),
    ) {
        let item = CronItem::new(&task, &schedule).expect("a good schedule");
        let item = CronItem { identifier: id.unwrap_or(task), options, payload, ..item };
        let line = item.to_string();
        prop_assert!(!line.contains(['\n', '\r']), "{}", line);
        prop_assert_eq!(parse_line(&line).map_err(|error| TestCaseError::fail(format!("{line}: {error}")))?, Some(item));
    }
}
