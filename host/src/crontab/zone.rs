//! Conversion between UTC and the wall clock of a time zone, and the jumps of the wall clock.

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{Offset, TimeZone},
};

const MINUTE: i64 = 60;
/// Wall clocks are within 26 hours of UTC, so that what was shown longer ago than this is shown no more.
const LONGEST_JUMP: i64 = 3 * 24 * 60;

/// A minute in UTC: whole minutes since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WorldMinute(pub(super) i64);

/// A minute on a wall clock: whole minutes since that clock showed the beginning of 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WallMinute(pub(super) i64);

impl WorldMinute {
    /// The minute that this moment is in.
    pub(super) fn of(moment: Timestamp) -> Self {
        // Moments before 1970 have a negative part of a second.
        let second = moment.as_second() - i64::from(moment.subsec_nanosecond() < 0);
        Self(second.div_euclid(MINUTE))
    }

    /// The first minute that begins at this moment or later.
    pub(super) fn from(moment: Timestamp) -> Self {
        let minute = Self::of(moment);
        Self(minute.0 + i64::from(minute.start() != moment))
    }

    pub(super) fn start(self) -> Timestamp {
        Timestamp::from_second(self.0.saturating_mul(MINUTE)).unwrap_or(if self.0 < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })
    }
}

impl WallMinute {
    /// No clock of the world shows less, but for some hours of it that cannot be named.
    pub(super) fn earliest() -> Self {
        Self(Timestamp::MIN.as_second() / MINUTE)
    }

    /// Nothing beyond the years -9999 to 9999.
    pub(super) fn date_and_time(self) -> Option<DateTime> {
        let moment = Timestamp::from_second(self.0.checked_mul(MINUTE)?).ok()?;
        Some(Offset::UTC.to_datetime(moment))
    }
}

/// What the wall clocks show at this minute. Where they are not whole minutes away from UTC (they were before 1972), their
/// seconds are cut off.
pub(super) fn wall_minute(zone: &TimeZone, minute: WorldMinute) -> WallMinute {
    let start = minute.start();
    WallMinute((minute.0 * MINUTE + i64::from(zone.to_offset(start).seconds())).div_euclid(MINUTE))
}

/// The first minute after this one at which wall clocks may have jumped.
pub(super) fn next_jump(zone: &TimeZone, minute: WorldMinute) -> Option<WorldMinute> {
    zone.following(minute.start()).next().map(|jump| WorldMinute::from(jump.timestamp()))
}

/// The latest time that the wall clocks have shown before this minute: that of the minute before, unless they went back since.
pub(super) fn latest_shown_before(zone: &TimeZone, minute: WorldMinute) -> WallMinute {
    let shown_before = |minute: WorldMinute| wall_minute(zone, WorldMinute(minute.0 - 1));
    zone.preceding(minute.start())
        .map(|jump| WorldMinute::from(jump.timestamp()))
        .take_while(|jump| jump.0 > minute.0 - LONGEST_JUMP)
        .map(shown_before)
        .fold(shown_before(minute), WallMinute::max)
}
