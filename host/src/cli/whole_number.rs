//! Whole numbers as flags take them, with an error that says which ones they are.

use std::ops::RangeInclusive;

/// A parser for the numbers of this range.
pub(super) fn whole_number<N: TryFrom<i64>>(
    range: RangeInclusive<i64>,
) -> impl Fn(&str) -> Result<N, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number =
            text.parse().ok().filter(|number| range.contains(number)).and_then(|number| N::try_from(number).ok());
        number.ok_or_else(|| match *range.end() {
            i64::MAX => format!("it must be a whole number from {}", range.start()),
            end => format!("it must be a whole number from {} to {end}", range.start()),
        })
    }
}

/// Those that the database stores as a priority.
pub(super) const PRIORITIES: RangeInclusive<i64> = i16::MIN as i64..=i16::MAX as i64;
/// How often a job may be tried.
pub(super) const ATTEMPTS: RangeInclusive<i64> = 1..=i16::MAX as i64;
