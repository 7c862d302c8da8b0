//! The syntax of durations and sizes.

use std::time::Duration;

/// The units of memory, with factors of 1,024 and of 1,000.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A hundred years. Much longer durations could overflow when added to the current time.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Reads `"500ms"`, `"2s"`, `"1h 30m"`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text.trim()).map_err(|_| {
        format!("{text:?} is not a duration: write it with its unit, such as \"500ms\", \"2s\" or \"1h 30m\"")
    })?;
    not_too_long(text, duration)
}

/// Like `parse_duration`, but a number without a unit is in milliseconds, as in graphile-worker's flags.
pub fn parse_milliseconds(text: &str) -> Result<Duration, String> {
    match text.trim().parse() {
        Ok(milliseconds) => not_too_long(text, Duration::from_millis(milliseconds)),
        Err(_) => parse_duration(text),
    }
}

fn not_too_long(text: &str, duration: Duration) -> Result<Duration, String> {
    if duration > LONGEST {
        Err(format!("{text:?} is too long: write at most 36500 days (100 years)"))
    } else {
        Ok(duration)
    }
}

/// Reads `"512MiB"`, `"2GB"`, `"1000000B"`, in bytes. A number without a unit is refused as ambiguous: most users would mean
/// megabytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a size: write it with its unit, such as \"512MiB\" or \"2GiB\"");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).ok_or_else(bad)?;
    number.checked_mul(*factor).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_in_the_unit_that_they_name() {
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("2 gb"), Ok(2_000_000_000));
        assert_eq!(parse_size("1000B"), Ok(1000));
        for bad in ["", "1000", "512 ", "MiB", "12 apples", "-1MiB", "1.5GiB", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bare_number_is_milliseconds_only_where_graphile_worker_has_it_so() {
        assert_eq!(parse_milliseconds("2000"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_milliseconds("2s"), Ok(Duration::from_secs(2)));
        assert!(parse_duration("2000").is_err());
    }

    #[test]
    fn a_duration_that_no_clock_can_count_is_refused() {
        assert_eq!(parse_duration("36500 days"), Ok(LONGEST));
        for endless in ["36501 days", "584542046090 years", "18446744073709551615s"] {
            assert!(parse_duration(endless).is_err_and(|error| error.contains("at most 36500 days")), "{endless}");
        }
        assert!(parse_milliseconds("18446744073709551615").is_err());
    }
}
