//! How schedules are written, and the times that they stand for.

// What is read, and what it is.
mod grammar;
// What is refused, and with which words.
mod refusals;
// Days on which clocks jump.
mod jumps;
// Against a slow reading of the same rules.
mod by_the_minute;
// Anything that can be written.
mod properties;

use jiff::Timestamp;
use taskbay::crontab::{CronItem, parse_line};

/// A line that is right.
#[track_caller]
fn item(line: &str) -> CronItem {
    parse_line(line).unwrap_or_else(|error| panic!("{line}: {error}")).expect("an item, not a comment")
}

#[track_caller]
fn moment(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
