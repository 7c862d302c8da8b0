//! How schedules are written: lines as in graphile-worker's crontab, and the times that they stand for.
//!
//! Nothing here knows the database, a file or a clock.

mod item;

pub use item::{CronItem, CronOptions, KeyMode};
