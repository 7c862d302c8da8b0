//! The time that a job is given: by `--run-at`, by `--in`, or by neither.

use std::time::{Duration, SystemTime};

use clap::Args;
use jiff::Zoned;

use super::{
    CliError,
    database::explain,
    moment::{self, FUTURE, Moment},
};
use crate::{
    config::{Clock, Layer},
    queue::{Database, QueueError, Session},
};

/// The options that say when a job is due. They are one setting with two names, each of which errors name as it was typed.
#[derive(Debug, Args)]
pub(super) struct RunAtOptions {
    /// Not before this time, such as 2030-01-31T12:00:00Z, or after this long, such as 10m, or now
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = RunAt::parse, overrides_with = "in_time")]
    run_at: Option<RunAt>,
    /// The same as --run-at
    #[arg(long = "in", value_name = "TIME", allow_hyphen_values = true, value_parser = RunAt::parse)]
    in_time: Option<RunAt>,
}

impl RunAtOptions {
    pub(super) fn time(&self) -> Option<RunAt> {
        self.run_at.or(self.in_time)
    }
}

/// A time as it was typed. Whose clock a distance counts from is known once there are settings and a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunAt {
    At(SystemTime),
    In(Duration),
}

impl RunAt {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if moment::is_negative(text) {
            return Err(format!("a distance counts into the future here, so it has no minus sign; {FUTURE}"));
        }
        match moment::parse(text, &Zoned::now()).ok_or_else(|| FUTURE.to_owned())? {
            Moment::Now => Ok(Self::In(Duration::ZERO)),
            Moment::At(time) => Ok(Self::At(time)),
            Moment::Distance(wait) => match SystemTime::now().checked_add(wait) {
                Some(_) => Ok(Self::In(wait)),
                None => Err("that is too far away".to_owned()),
            },
        }
    }

    /// The time by the clock that also says which jobs are due.
    pub(super) async fn by_clock_of(
        self,
        settings: &Layer,
        database: &Database,
        session: &Session,
    ) -> Result<SystemTime, CliError> {
        let now = match (self, clock(settings)) {
            (Self::At(time), _) => return Ok(time),
            (Self::In(_), Clock::Process) => SystemTime::now(),
            (Self::In(_), Clock::Database) => session.now().await.map_err(explain(database))?,
        };
        let Self::In(wait) = self else { return Ok(now) };
        now.checked_add(wait).ok_or_else(|| {
            CliError::Queue(QueueError::BadJob { reason: "its time is too far away for the database".to_owned() })
        })
    }
}

/// Whose clock says which jobs are due.
pub(super) fn clock(settings: &Layer) -> Clock {
    settings.clock.unwrap_or_default()
}
