//! How the log lines put times, spans and names.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// When something began that has lasted for so long, by the clock.
pub(super) fn began(lasted: Duration) -> String {
    let began = Timestamp::now().checked_sub(SignedDuration::try_from(lasted).unwrap_or_default());
    began.map_or_else(|_| "long ago".to_owned(), |began| format!("{began:.0}"))
}

/// For people.
pub(super) fn in_seconds(lasted: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(lasted.as_secs()))
}

/// What is said of a folder that cannot be used while builds from it serve.
pub(super) fn serves_on(serving: usize) -> &'static str {
    if serving == 0 { "" } else { "; what is loaded keeps serving" }
}

/// For people: nothing below a second matters unless there is nothing else.
pub(super) fn rounded(span: Duration) -> humantime::FormattedDuration {
    let seconds = Duration::from_secs(span.as_secs_f64().round() as u64);
    humantime::format_duration(if seconds.is_zero() { span } else { seconds })
}

/// For log pipelines: a number with microseconds behind the point.
pub(super) fn milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// Names behind a word, if there are any.
pub(super) fn listed(word: &str, names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("{word}{}", names.join(", ")) }
}
