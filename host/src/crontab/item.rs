//! One schedule: which job, and when.

use std::{fmt, sync::Arc, time::Duration};

use jiff::tz::TimeZone;

use super::Pattern;

/// A job that is added again and again.
///
/// Made by [`parse_crontab`](super::parse_crontab) and its siblings, or in code:
///
/// ```
/// use std::time::Duration;
/// use taskbay::crontab::CronItem;
///
/// let item = CronItem::new("send_mail", "0 4 * * *")?
///     .identifier("early_mail")?
///     .backfill(Duration::from_secs(86_400))?
///     .time_zone("Europe/Berlin")?;
/// assert_eq!(item.to_string(), "0 4 * * * send_mail ?id=early_mail&fill=1d&tz=Europe/Berlin");
/// # Ok::<(), taskbay::crontab::CrontabError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct CronItem {
    /// The name of the task.
    pub task: String,
    /// The name under which the database remembers when it was last added: that of the task unless the line says `id=`.
    pub identifier: String,
    pub when: When,
    pub options: CronOptions,
    /// The payload, which the job gets with `_cron` added.
    pub payload: serde_json::Map<String, serde_json::Value>,
}

/// The times of an item.
#[derive(Clone)]
pub enum When {
    /// The five fields of a line.
    Pattern(Pattern),
    /// Asked for each real minute, with what a clock in the item's zone shows. It never makes up for skipped times and is
    /// asked twice about those that are shown twice.
    Function(Arc<dyn Fn(LocalTime) -> bool + Send + Sync>),
}

/// What a clock and a calendar show, in graphile-worker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalTime {
    /// 0-59
    pub min: u8,
    /// 0-23
    pub hour: u8,
    /// The day of the month, 1-31.
    pub date: u8,
    /// 1-12
    pub month: u8,
    /// The day of the week, 0-6; 0 is Sunday.
    pub dow: u8,
}

/// What a line says behind `?`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CronOptions {
    /// `fill`: how far back missed times are made up for at the start, in whole seconds; zero: not at all.
    pub backfill: Duration,
    /// `max`: the attempts of the job, 1 and more.
    pub max_attempts: Option<i16>,
    /// `queue`: at most 128 characters.
    pub queue_name: Option<String>,
    /// `priority`
    pub priority: Option<i16>,
    /// `jobKey`: 1 to 512 characters.
    pub job_key: Option<String>,
    /// `jobKeyMode`: only of use with a key; [`KeyMode::Replace`] without.
    pub job_key_mode: Option<KeyMode>,
    /// `tz`: the time zone that the fields are in; UTC without.
    pub time_zone: Option<TimeZone>,
}

/// What happens to a job that waits under the key already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyMode {
    Replace,
    PreserveRunAt,
}

impl PartialEq for When {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pattern(one), Self::Pattern(other)) => one == other,
            (Self::Function(one), Self::Function(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pattern(pattern) => write!(f, "Pattern({pattern})"),
            Self::Function(_) => f.write_str("Function"),
        }
    }
}
