//! Items that are made in code, with the same checks as those that are read.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};

use super::{
    CronItem, CrontabError, KeyMode, LocalTime, Problem, When,
    options::{
        checked_backfill, checked_identifier, checked_job_key, checked_max_attempts, checked_queue, find_time_zone,
    },
    parse_schedule,
};

impl CronItem {
    /// An item from five fields, and options and a payload if they are there: see [`parse_schedule`].
    pub fn new(task: &str, schedule: &str) -> Result<Self, CrontabError> {
        parse_schedule(task, schedule)
    }

    /// An item that is due whenever this function says so. It is asked about each minute, with the time in the item's zone.
    ///
    /// ```
    /// # use taskbay::crontab::CronItem;
    /// // The last day of each April.
    /// let item = CronItem::from_function("close_books", |at| (at.month, at.date, at.hour, at.min) == (4, 30, 18, 0))?;
    /// assert_eq!(item.next_after("2026-01-01T00:00Z".parse()?), Some("2026-04-30T18:00Z".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_function(
        task: &str,
        is_due: impl Fn(LocalTime) -> bool + Send + Sync + 'static,
    ) -> Result<Self, CrontabError> {
        let item = parse_schedule(task, "* * * * *")?;
        Ok(Self { when: When::Function(Arc::new(is_due)), ..item })
    }

    /// A letter or `_`, and then letters, digits, `_` and `-`. Unique among the items of a database.
    pub fn identifier(mut self, identifier: &str) -> Result<Self, CrontabError> {
        self.identifier = checked_identifier(identifier).map_err(Problem::from)?;
        Ok(self)
    }

    /// How far back missed times are made up for at the start, at most a hundred years. Parts of a second are dropped.
    pub fn backfill(mut self, period: Duration) -> Result<Self, CrontabError> {
        self.options.backfill = checked_backfill(period).map_err(Problem::from)?;
        Ok(self)
    }

    /// 1 and more.
    pub fn max_attempts(mut self, attempts: i16) -> Result<Self, CrontabError> {
        self.options.max_attempts = Some(checked_max_attempts(attempts).map_err(Problem::from)?);
        Ok(self)
    }

    /// 1 to 128 letters, digits, `-`, `_` and `:`.
    pub fn queue_name(mut self, queue: &str) -> Result<Self, CrontabError> {
        self.options.queue_name = Some(checked_queue(queue).map_err(Problem::from)?);
        Ok(self)
    }

    /// 1 to 512 characters.
    pub fn job_key(mut self, key: &str) -> Result<Self, CrontabError> {
        self.options.job_key = Some(checked_job_key(key).map_err(Problem::from)?);
        Ok(self)
    }

    pub fn job_key_mode(mut self, mode: KeyMode) -> Self {
        self.options.job_key_mode = Some(mode);
        self
    }

    /// Jobs with smaller numbers run first.
    pub fn priority(mut self, priority: i16) -> Self {
        self.options.priority = Some(priority);
        self
    }

    /// The zone that the fields are in, by its name in the IANA database.
    pub fn time_zone(mut self, name: &str) -> Result<Self, CrontabError> {
        self.options.time_zone = Some(find_time_zone(name).map_err(Problem::from)?);
        Ok(self)
    }

    pub fn payload(mut self, payload: Map<String, Value>) -> Self {
        self.payload = payload;
        self
    }
}
