//! The five fields together: which minutes of a wall clock they stand for.

use std::fmt;

use jiff::civil::Date;

use super::{Field, FieldError, FieldKind, zone::WallMinute};

/// Five fields, as in `0 4 * * 1-5`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    minutes: Field,
    hours: Field,
    dates: Field,
    months: Field,
    weekdays: Field,
}

const HOUR: i64 = 60;
const DAY: i64 = 24 * HOUR;

impl Pattern {
    /// The error comes with the number of the field, and the byte in it, at which something is wrong.
    pub(super) fn parse(fields: [&str; 5]) -> Result<Self, (usize, usize, FieldError)> {
        let parse = |index: usize| {
            Field::parse(FieldKind::ALL[index], fields[index]).map_err(|(offset, error)| (index, offset, error))
        };
        Ok(Self { minutes: parse(0)?, hours: parse(1)?, dates: parse(2)?, months: parse(3)?, weekdays: parse(4)? })
    }

    pub fn minutes(&self) -> &Field {
        &self.minutes
    }

    pub fn hours(&self) -> &Field {
        &self.hours
    }

    /// The days of the month.
    pub fn dates(&self) -> &Field {
        &self.dates
    }

    pub fn months(&self) -> &Field {
        &self.months
    }

    /// The days of the week; 0 is Sunday, and there is no 7.
    pub fn weekdays(&self) -> &Field {
        &self.weekdays
    }

    /// Whether it fires whenever a clock shows a matching time, rather than once for each matching time that the calendar has.
    pub fn follows_the_clock(&self) -> bool {
        self.hours.is_recurring()
    }

    /// The first matching minute of the stretch, both ends included.
    pub(super) fn first_in(&self, first: WallMinute, last: WallMinute) -> Option<WallMinute> {
        let WallMinute(mut minute) = first;
        while minute <= last.0 {
            let at = WallMinute(minute).date_and_time()?;
            let (hour, of_hour) = (i64::from(at.hour()), i64::from(at.minute()));
            let of_day = hour * HOUR + of_hour;
            if !self.months.contains(at.month() as u8) {
                minute += (i64::from(at.days_in_month()) - i64::from(at.day()) + 1) * DAY - of_day;
            } else if !self.has_day(at.date()) {
                minute += DAY - of_day;
            } else {
                match (self.hours.from(at.hour() as u8), self.minutes.from(at.minute() as u8)) {
                    (None, _) => minute += DAY - of_day,
                    (Some(next), _) if i64::from(next) > hour => minute += i64::from(next) * HOUR - of_day,
                    (_, None) => minute += HOUR - of_hour,
                    (_, Some(next)) => {
                        minute += i64::from(next) - of_hour;
                        return (minute <= last.0).then_some(WallMinute(minute));
                    }
                }
            }
        }
        None
    }

    /// Where the day of the month and the day of the week are both restricted, one of them is enough.
    fn has_day(&self, day: Date) -> bool {
        let by_date = self.dates.contains(day.day() as u8);
        let by_weekday = self.weekdays.contains(day.weekday().to_sunday_zero_offset() as u8);
        if self.dates.is_full() || self.weekdays.is_full() { by_date && by_weekday } else { by_date || by_weekday }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { minutes, hours, dates, months, weekdays } = self;
        write!(f, "{minutes} {hours} {dates} {months} {weekdays}")
    }
}
