//! The time that a job is given: by `--run-at`, by `--in`, or by neither.

use std::time::{Duration, SystemTime};

use jiff::Zoned;

use super::{
    CliError,
    database::explain,
    moment::{self, Moment},
};
use crate::{
    config::{Clock, Layer},
    queue::{Database, QueueError, Session},
};

/// A time as it was typed. Whose clock a distance counts from is known once there are settings and a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunAt {
    At(SystemTime),
    In(Duration),
}

impl RunAt {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match moment::parse(text, &Zoned::now())? {
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
