//! Displays an item as a crontab line.

use std::fmt::{self, Write};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{CronItem, CronOptions, KeyMode, When};

/// The characters that need no escaping in options.
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b':').remove(b'/').remove(b'*');

impl fmt::Display for CronItem {
    /// The line without a line end. An item with a function of its own cannot be written as one, and says so.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.when {
            When::Pattern(pattern) => write!(f, "{pattern} {}", self.task)?,
            When::Function(_) => write!(f, "(a function) {}", self.task)?,
        }
        let mut mark = '?';
        let mut option = |key: &str, value: &str| {
            write!(f, "{}{key}={}", Spaced(std::mem::replace(&mut mark, '&')), utf8_percent_encode(value, &PLAIN))
        };
        if self.identifier != self.task {
            option("id", &self.identifier)?;
        }
        let CronOptions { backfill, max_attempts, queue_name, priority, job_key, job_key_mode, time_zone } =
            &self.options;
        if backfill.as_secs() > 0 {
            option("fill", &period(backfill.as_secs()))?;
        }
        if let Some(attempts) = max_attempts {
            option("max", &attempts.to_string())?;
        }
        if let Some(queue) = queue_name {
            option("queue", queue)?;
        }
        if let Some(key) = job_key {
            option("jobKey", key)?;
        }
        if let Some(mode) = job_key_mode {
            option("jobKeyMode", mode.as_str())?;
        }
        if let Some(priority) = priority {
            option("priority", &priority.to_string())?;
        }
        if let Some(zone) = time_zone {
            option("tz", zone.iana_name().unwrap_or("UTC"))?;
        }
        if self.payload.is_empty() {
            return Ok(());
        }
        f.write_char(' ')?;
        f.write_str(&serde_json::to_string(&self.payload).map_err(|_| fmt::Error)?)
    }
}

impl KeyMode {
    /// As it is written in a line and in calls of `add_job`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::PreserveRunAt => "preserve_run_at",
        }
    }
}

/// A question mark stands apart from the task, an ampersand does not.
struct Spaced(char);

impl fmt::Display for Spaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == '?' { f.write_str(" ?") } else { f.write_char(self.0) }
    }
}

/// `1d12h`
fn period(seconds: u64) -> String {
    let mut rest = seconds;
    let mut text = String::new();
    // Weeks come out as days, which are easier to read beyond one or two.
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if rest >= length {
            text.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    text
}
