//! Moments, as people write and read them.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::config;

/// Reads a time, or how long from now it is.
pub(super) fn parse_future(text: &str) -> Result<SystemTime, String> {
    match parse(text)? {
        Moment::At(time) => Ok(time),
        Moment::Distance(wait) => SystemTime::now().checked_add(wait).ok_or_else(|| "that is too far away".to_owned()),
    }
}

/// Reads a time, or how long ago it was.
pub(super) fn parse_past(text: &str) -> Result<SystemTime, String> {
    match parse(text)? {
        Moment::At(time) => Ok(time),
        Moment::Distance(age) => SystemTime::now().checked_sub(age).ok_or_else(|| "that is too long ago".to_owned()),
    }
}

enum Moment {
    At(SystemTime),
    Distance(Duration),
}

fn parse(text: &str) -> Result<Moment, String> {
    if text == "now" {
        return Ok(Moment::At(SystemTime::now()));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Moment::At(time.into()));
    }
    config::parse_duration(text)
        .map(Moment::Distance)
        .map_err(|_| "write a time such as 2030-01-31T12:00:00Z, or a distance from now, such as 10m".to_owned())
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
        assert_eq!(parse_future("1970-01-01T01:00:00+01:00"), Ok(SystemTime::UNIX_EPOCH));
        assert!(parse_future("10m").unwrap() > SystemTime::now() + Duration::from_secs(590));
        assert!(parse_past("10m").unwrap() < SystemTime::now() - Duration::from_secs(590));
        assert!(parse_future("tomorrow").is_err());
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
