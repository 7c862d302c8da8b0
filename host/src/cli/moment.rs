//! Moments, as people write and read them.

use std::time::{Duration, SystemTime};

use jiff::{Timestamp, ToSpan as _, Zoned, civil::DateTime, tz::TimeZone};

use crate::config;

/// What is said of a past time that cannot be read.
const PAST: &str = "write a time such as 2026-01-31T12:00:00Z, a day such as 2026-01-31 or yesterday, or how long ago it was, such as 2h";

/// What is said of a future time that cannot be read.
pub(super) const FUTURE: &str = "write a time such as 2030-01-31T12:00:00Z, a day such as 2030-01-31 or tomorrow, or a distance from now, such as 10m";

/// Reads a time, or how long ago it was.
pub(super) fn parse_past(text: &str) -> Result<SystemTime, String> {
    if is_negative(text) {
        return Err(format!("a distance counts into the past here, so it has no minus sign; {PAST}"));
    }
    match parse(text.trim().trim_end_matches(" ago"), &Zoned::now()).ok_or_else(|| PAST.to_owned())? {
        Moment::Now => Ok(SystemTime::now()),
        Moment::At(time) => Ok(time),
        Moment::Distance(age) => SystemTime::now().checked_sub(age).ok_or_else(|| "that is too long ago".to_owned()),
    }
}

/// Whether it is a distance with a minus sign.
pub(super) fn is_negative(text: &str) -> bool {
    text.trim().strip_prefix('-').is_some_and(|rest| config::parse_duration(rest).is_ok())
}

/// What people write for a time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Now,
    At(SystemTime),
    /// So long before now, or after it.
    Distance(Duration),
}

/// What names no zone is in that of `now`, and a day begins at midnight there.
pub(super) fn parse(text: &str, now: &Zoned) -> Option<Moment> {
    let text = text.trim();
    let at = |time: Zoned| Some(Moment::At(time.timestamp().into()));
    let midnight = |days: i64| now.checked_add(days.days()).and_then(|day| day.start_of_day()).ok();
    match text {
        "now" => return Some(Moment::Now),
        "today" => return at(midnight(0)?),
        "yesterday" => return at(midnight(-1)?),
        "tomorrow" => return at(midnight(1)?),
        _ => {}
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(Moment::At(time.into()));
    }
    if let Ok(time) = text.parse::<Zoned>() {
        return at(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return at(in_zone(time, now.time_zone())?);
    }
    config::parse_duration(text).map(Moment::Distance).ok()
}

fn in_zone(time: DateTime, zone: &TimeZone) -> Option<Zoned> {
    time.to_zoned(zone.clone()).ok()
}

/// As RFC 3339 has it, in UTC. Postgres has infinite times, and some that no calendar has.
pub(super) fn written(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(
        |_| if time > SystemTime::UNIX_EPOCH { "infinity" } else { "-infinity" }.to_owned(),
        |time| format!("{time:.6}"),
    )
}

/// `in 5m`, `3s ago`, `now`.
pub(super) fn relative(time: SystemTime) -> String {
    match time.duration_since(SystemTime::now()) {
        Ok(ahead) if ahead.as_secs() > 100 * 365 * 86_400 => "never".to_owned(),
        Ok(ahead) if ahead.as_secs() == 0 => "now".to_owned(),
        Ok(ahead) => format!("in {}", span(ahead)),
        Err(error) if error.duration().as_secs() == 0 => "now".to_owned(),
        Err(error) => format!("{} ago", span(error.duration())),
    }
}

/// How long ago it was.
pub(super) fn age(time: SystemTime) -> String {
    span(time.elapsed().unwrap_or_default())
}

/// The largest unit and the one below it: `3d 4h`, `5m`, `12s`.
fn span(span: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let seconds = span.as_secs();
    let first = UNITS.iter().position(|(size, _)| seconds >= *size).unwrap_or(UNITS.len() - 1);
    let (size, unit) = UNITS[first];
    let rest = UNITS.get(first + 1).map(|(below, unit)| (seconds % size / below, unit)).filter(|(count, _)| *count > 0);
    let rest = rest.map_or_else(String::new, |(count, unit)| format!(" {count}{unit}"));
    format!("{}{unit}{rest}", seconds / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_a_distance_from_now() {
        assert_eq!(parse_past("1970-01-01T01:00:00+01:00"), Ok(SystemTime::UNIX_EPOCH));
        assert!(parse_past("10m").unwrap() < SystemTime::now() - Duration::from_secs(590));
        assert!(parse_past("10m ago").unwrap() < SystemTime::now() - Duration::from_secs(590));
        for nonsense in ["soon", "", "2026-13-01", "2026-02-30", "ago", "-10m"] {
            let refused = parse_past(nonsense).unwrap_err();
            assert!(refused.contains("such as 2h") && refused.contains("yesterday"), "{nonsense}: {refused}");
        }
    }

    #[test]
    fn a_day_begins_at_midnight_in_the_zone_of_the_machine() {
        // The day after the clocks were put back: yesterday had 25 hours.
        let now: Zoned = "2026-10-26T09:30:00+01:00[Europe/Berlin]".parse().unwrap();
        let read = |text: &str| match parse(text, &now).unwrap() {
            Moment::Now => "now".to_owned(),
            Moment::At(time) => written(time).replace(".000000", ""),
            Moment::Distance(distance) => format!("{distance:?}"),
        };
        for (text, expected) in [
            ("now", "now"),
            ("today", "2026-10-25T23:00:00Z"),
            ("yesterday", "2026-10-24T22:00:00Z"),
            ("tomorrow", "2026-10-26T23:00:00Z"),
            ("2026-10-25", "2026-10-24T22:00:00Z"),
            ("2026-10-26 09:00", "2026-10-26T08:00:00Z"),
            ("2026-10-26T09:00:30", "2026-10-26T08:00:30Z"),
            ("2026-10-26T09:00:30Z", "2026-10-26T09:00:30Z"),
            ("2026-10-26T09:00+05:30", "2026-10-26T03:30:00Z"),
            ("2026-10-26T09:00[America/New_York]", "2026-10-26T13:00:00Z"),
            (" 1h 30m ", "5400s"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn spans_are_told_by_their_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (60, "1m"), (3_725, "1h 2m"), (90_000, "1d 1h"), (86_405, "1d")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(relative(SystemTime::now() + Duration::from_secs(u64::from(u32::MAX) * 2)), "never");
        assert_eq!(written(SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_000)), "1970-01-01T00:00:01.500000Z");
    }
}
