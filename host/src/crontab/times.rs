//! The minutes at which an item is due; the module's first page says what clocks that jump do to them.

use jiff::{Timestamp, tz::TimeZone};

use super::{
    CronItem, LocalTime, When,
    zone::{WallMinute, WorldMinute, latest_shown_before, next_jump, wall_minute},
};

const YEAR: i64 = 366 * 24 * 60;
/// A 29th of February can be eight years away, and the zone may skip that one.
const FARTHEST: i64 = 20 * YEAR;
/// Functions have to be asked about each single minute.
const FARTHEST_OF_FUNCTION: i64 = YEAR;

/// The minutes at which an item is due, in order: see [`CronItem::times`].
#[derive(Debug, Clone)]
pub struct Times<'item> {
    item: &'item CronItem,
    zone: TimeZone,
    at: WorldMinute,
    end: WorldMinute,
    /// The latest time that was shown before `at`.
    shown: WallMinute,
}

impl CronItem {
    /// Whether the item is due in the minute of this moment.
    pub fn matches(&self, minute: Timestamp) -> bool {
        let minute = WorldMinute::of(minute);
        self.between(minute, WorldMinute(minute.0 + 1)).next().is_some()
    }

    /// Every minute at which the item is due from `from` on and before `to`, in order.
    ///
    /// What lies between is skipped by month, day and hour, so that ten years of a yearly item cost next to nothing. An item
    /// with a function of its own asks it about each minute.
    ///
    /// ```
    /// let item = taskbay::crontab::parse_schedule("report", "30 2 * * * ?tz=Europe/Berlin")?;
    /// // Clocks jump from 2:00 to 3:00 on the second of these days.
    /// let times = item.times("2026-03-28T00:00Z".parse()?, "2026-03-31T00:00Z".parse()?);
    /// let times: Vec<String> = times.map(|time| time.to_string()).collect();
    /// assert_eq!(times, ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn times(&self, from: Timestamp, to: Timestamp) -> Times<'_> {
        self.between(WorldMinute::from(from), WorldMinute::from(to))
    }

    /// The first minute after this moment at which the item is due.
    ///
    /// Nothing if it never is (30 February), and for an item with a function of its own, which has to be asked about each
    /// minute, if it is not within a year.
    pub fn next_after(&self, moment: Timestamp) -> Option<Timestamp> {
        let farthest = match self.when {
            When::Pattern(_) => FARTHEST,
            When::Function(_) => FARTHEST_OF_FUNCTION,
        };
        let first = WorldMinute(WorldMinute::of(moment).0 + 1);
        self.between(first, WorldMinute(first.0 + farthest)).next()
    }

    fn between(&self, at: WorldMinute, end: WorldMinute) -> Times<'_> {
        let zone = self.options.time_zone.clone().unwrap_or(TimeZone::UTC);
        let end = end.min(WorldMinute::of(Timestamp::MAX));
        let shown = latest_shown_before(&zone, at);
        Times { item: self, zone, at, end, shown }
    }
}

impl Iterator for Times<'_> {
    type Item = Timestamp;

    fn next(&mut self) -> Option<Timestamp> {
        while self.at < self.end {
            // Between two jumps, wall clocks and the world go at the same pace.
            let jump = next_jump(&self.zone, self.at).map_or(self.end, |jump| jump.min(self.end));
            let shows = wall_minute(&self.zone, self.at);
            let last = WallMinute(shows.0 + (jump.0 - self.at.0 - 1));
            // What a clock that never goes back has to show next: later than `shows` after a jump back, earlier after a jump
            // forward, whose skipped times are due at once.
            let first = if self.item.when.follows_the_clock() { shows } else { WallMinute(self.shown.0 + 1) };
            let due = self.item.when.first_in(first, last);
            let Some(due) = due else {
                self.at = jump;
                self.shown = self.shown.max(last);
                continue;
            };
            let waits = (due.0 - shows.0).max(0);
            let minute = WorldMinute(self.at.0 + waits);
            self.at = WorldMinute(minute.0 + 1);
            self.shown = self.shown.max(WallMinute(shows.0 + waits));
            return Some(minute.start());
        }
        None
    }
}

impl When {
    fn follows_the_clock(&self) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.follows_the_clock(),
            Self::Function(_) => true,
        }
    }

    fn first_in(&self, first: WallMinute, last: WallMinute) -> Option<WallMinute> {
        match self {
            Self::Pattern(pattern) => pattern.first_in(first, last),
            Self::Function(function) => (first.0..=last.0).map(WallMinute).find(|minute| {
                minute.date_and_time().is_some_and(|at| {
                    function(LocalTime {
                        min: at.minute() as u8,
                        hour: at.hour() as u8,
                        date: at.day() as u8,
                        month: at.month() as u8,
                        dow: at.weekday().to_sunday_zero_offset() as u8,
                    })
                })
            }),
        }
    }
}
