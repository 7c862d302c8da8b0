//! How schedules are written: lines as in graphile-worker's crontab, and the times that they stand for.
//!
//! Nothing here knows the database, a file or a clock.
//!
//! ```text
//! # ┌ minute 0-59
//! # │ ┌ hour 0-23
//! # │ │ ┌ day of the month 1-31
//! # │ │ │ ┌ month 1-12
//! # │ │ │ │ ┌ day of the week 0-7, 0 and 7 are Sunday
//! # │ │ │ │ │ task      options               payload
//!   0 4 * * * send_mail ?fill=1d&tz=Asia/Tokyo {to: "all"}
//! ```
//!
//! A field is a list of numbers, `a-b`, `*` and `*/n`, joined by commas. Where the day of the month and the day of the week
//! are both restricted, one of them is enough.
//!
//! # Clocks that jump
//!
//! Fields are read in UTC, or in the zone of the option `tz`. Where that zone's clock jumps, what an entry means depends on
//! its hour field alone:
//!
//! * The hour field has `*` or `*/n`, or names all 24 hours: the entry **follows the clock's face**. It fires at each real
//!   minute at which the clock shows a matching time. Times that are skipped do not fire, times that are shown twice fire
//!   twice: `0 * * * *` is every real hour, all year.
//! * The hour field names hours (`4`, `9-17`, `2,14`): the entry fires **once for each time that the calendar has**. It
//!   follows a clock that never goes back: a time that is shown twice fires when it is first shown, and times that are skipped
//!   fire at the moment of the jump, all of them together as one. `30 2 * * *` is once a day, all year.
//!
//! These two rules hold for every zone and every jump: of half an hour (Australia/Lord_Howe), at midnight (Africa/Cairo), and
//! of a whole day (Pacific/Apia had no 2011-12-30).

mod builder;
mod field;
mod item;
mod line;
mod options;
mod pattern;
mod payload;
mod printed;
mod shortened;
mod times;
mod zone;

pub use field::{Field, FieldError, FieldKind};
pub use item::{CronItem, CronOptions, KeyMode, LocalTime, When};
pub use line::{CrontabError, CrontabErrors, LONGEST_LINE, Problem, parse_crontab, parse_line, parse_schedule};
pub use options::OptionError;
pub use pattern::Pattern;
pub use payload::PayloadError;
pub use times::Times;
