//! The same rules read slowly: each minute of the world is looked at, one after the other, by code that shares none.

use jiff::{Timestamp, tz::TimeZone};
use proptest::prelude::*;

use super::{item, moment};

const ZONES: [&str; 14] = [
    "UTC",
    "Europe/Berlin",
    "Europe/Dublin",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Antarctica/Troll",
];

/// A schedule that is asked about each minute that wall clocks show.
struct Slow {
    /// Whether each number belongs to each field.
    fields: [[bool; 60]; 5],
    follows_the_clock: bool,
    days_restricted: (bool, bool),
}

impl Slow {
    fn new(schedule: &str) -> Self {
        let texts: Vec<&str> = schedule.split(' ').collect();
        let ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
        let fields = [0, 1, 2, 3, 4].map(|index| {
            let (least, most) = ranges[index];
            let mut numbers: Vec<i64> = Vec::new();
            for part in texts[index].split(',') {
                let number = |text: &str| text.parse::<i64>().expect("a number");
                if let Some(step) = part.strip_prefix("*/") {
                    numbers.extend((least..=most).filter(|n| (n - least) % number(step) == 0));
                } else if part == "*" {
                    numbers.extend(least..=most);
                } else {
                    let (first, last) = part.split_once('-').unwrap_or((part, part));
                    numbers.extend((number(first)..=number(last)).map(|n| if index == 4 { n % 7 } else { n }));
                }
            }
            std::array::from_fn(|number| numbers.contains(&(number as i64)))
        });
        let count = |index: usize| -> usize { fields[index].iter().filter(|belongs| **belongs).count() };
        Self {
            follows_the_clock: texts[1].contains('*') || count(1) == 24,
            days_restricted: (count(2) < 31, count(4) < 7),
            fields,
        }
    }

    fn has(&self, field: usize, number: i64) -> bool {
        self.fields[field][number as usize]
    }

    /// Minutes are counted from 1970 on the wall clock.
    fn shows(&self, wall: i64) -> bool {
        let (day, minute) = (wall.div_euclid(1440), wall.rem_euclid(1440));
        if !self.has(1, minute / 60) || !self.has(0, minute % 60) {
            return false;
        }
        let (date, month) = date_and_month(day);
        let by_date = self.has(2, date);
        // The first day of 1970 was a Thursday.
        let by_weekday = self.has(4, (day + 4).rem_euclid(7));
        let day_is_right = match self.days_restricted {
            (true, true) => by_date || by_weekday,
            _ => by_date && by_weekday,
        };
        self.has(3, month) && day_is_right
    }
}

/// Counts the years and months from 1970 on.
fn date_and_month(day: i64) -> (i64, i64) {
    let mut rest = day;
    let mut year = 1970;
    loop {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let length: i64 = lengths.iter().sum();
        if rest < length {
            for (month, length) in lengths.iter().enumerate() {
                if rest < *length {
                    return (rest + 1, month as i64 + 1);
                }
                rest -= length;
            }
        }
        rest -= length;
        year += 1;
    }
}

/// What wall clocks show at each minute, and the latest that they showed before, minute by minute from four days earlier on.
fn walk(zone: &TimeZone, from: Timestamp, to: Timestamp, mut each: impl FnMut(i64, i64, i64)) {
    let (from, to) = (from.as_second() / 60, to.as_second() / 60);
    let mut latest = i64::MIN;
    for minute in from - 4 * 1440..to {
        let time = Timestamp::from_second(minute * 60).expect("within range");
        let wall = (minute * 60 + i64::from(zone.to_offset(time).seconds())).div_euclid(60);
        if minute >= from {
            each(minute, wall, latest);
        }
        latest = latest.max(wall);
    }
}

fn is_due(slow: &Slow, wall: i64, latest: i64) -> bool {
    if slow.follows_the_clock { slow.shows(wall) } else { (latest + 1..=wall).any(|wall| slow.shows(wall)) }
}

fn compare(schedules: &[String], zone: &str, from: Timestamp, to: Timestamp) {
    let slow: Vec<Slow> = schedules.iter().map(|schedule| Slow::new(schedule)).collect();
    let mut expected = vec![Vec::new(); schedules.len()];
    walk(&TimeZone::get(zone).expect("a zone"), from, to, |minute, wall, latest| {
        for (slow, expected) in slow.iter().zip(&mut expected) {
            if is_due(slow, wall, latest) {
                expected.push(minute * 60);
            }
        }
    });
    for (schedule, expected) in schedules.iter().zip(expected) {
        let item = item(&format!("{schedule} t ?tz={zone}"));
        let times: Vec<i64> = item.times(from, to).map(Timestamp::as_second).collect();
        assert_eq!(times, expected, "{schedule} in {zone} from {from} to {to}");
    }
}

#[test]
fn ten_years_are_the_same_minute_by_minute() {
    let schedules = ["30 2 * * *", "*/20 1-3 * * 0", "15 */2 29 2,3,10 *", "59 23 31 * 5", "0 0 * * *"];
    let schedules = schedules.map(str::to_owned);
    // Leap days, and the day that Samoa skipped.
    let zones = ["Europe/Berlin", "Pacific/Apia"];
    std::thread::scope(|scope| {
        for zone in zones {
            let schedules = &schedules;
            scope.spawn(move || compare(schedules, zone, moment("2007-06-01T00:00Z"), moment("2017-06-01T00:00Z")));
        }
    });
}

/// Numbers of a field, and how they are joined.
fn field(least: u8, most: u8) -> impl Strategy<Value = String> {
    let number = least..=most;
    let range = (least..most).prop_flat_map(move |first| (Just(first), first + 1..=most));
    let part = prop_oneof![
        2 => number.prop_map(|number| number.to_string()),
        1 => range.prop_map(|(first, last)| format!("{first}-{last}")),
        1 => (1..=most).prop_map(|step| format!("*/{step}")),
    ];
    prop_oneof![
        2 => Just("*".to_owned()),
        3 => prop::collection::vec(part, 1..3).prop_map(|parts| parts.join(",")),
    ]
}

/// Five fields, mostly of the hours at which clocks jump.
pub(super) fn schedule() -> impl Strategy<Value = String> {
    let hours = prop_oneof![field(0, 3), field(0, 23)];
    (field(0, 59), hours, field(1, 31), field(1, 12), field(0, 7))
        .prop_map(|(minute, hour, date, month, weekday)| format!("{minute} {hour} {date} {month} {weekday}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn days_around_jumps_are_the_same_minute_by_minute(
        schedule in schedule(),
        daily in field(0, 3),
        zone in prop::sample::select(&ZONES),
        start in 946_684_800_i64..2_208_988_800,
        before in 0_i64..4_000,
        length in 0_i64..4_000,
    ) {
        let named = TimeZone::get(zone).expect("a zone");
        let somewhere = Timestamp::from_second(start / 60 * 60).expect("within range");
        let jump = named.following(somewhere).next().map_or(somewhere, |jump| jump.timestamp());
        // Some zones have the last second that 32 bits can count among their jumps.
        let from = Timestamp::from_second((jump.as_second() / 60 - before) * 60).expect("within range");
        let to = Timestamp::from_second(from.as_second() + (before + length) * 60).expect("within range");
        // Random days and months rarely meet a jump; a daily one always does.
        compare(&[schedule, format!("*/15 {daily} * * *")], zone, from, to);
    }

    #[test]
    fn single_minutes_agree_with_stretches(
        schedule in schedule(),
        zone in prop::sample::select(&ZONES),
        start in 946_684_800_i64..2_208_988_800,
    ) {
        let item = item(&format!("{schedule} t ?tz={zone}"));
        let zone = TimeZone::get(zone).expect("a zone");
        let start = Timestamp::from_second(start).expect("within range");
        let start = zone.following(start).next().map_or(start, |jump| jump.timestamp());
        let first = start.as_second().div_euclid(60) - 90;
        let at = |minute: i64| Timestamp::from_second(minute * 60).expect("within range");
        let times: Vec<_> = item.times(at(first), at(first + 180)).collect();
        let matching: Vec<_> = (first..first + 180).map(at).filter(|time| item.matches(*time)).collect();
        prop_assert_eq!(&times, &matching);
        prop_assert_eq!(item.next_after(at(first - 1)).filter(|time| *time < at(first + 180)), times.first().copied());
    }
}
