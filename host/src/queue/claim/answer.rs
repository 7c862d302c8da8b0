//! What the statement that claims answers.

use std::time::{Duration, SystemTime};

use tokio_postgres::Row;

use super::{
    CROWD,
    statement::{FOUND, FREE_WALK, GONE, JOB, LAST_QUEUED, PASSED, QUEUED_WALK},
    waiting::Spot,
};
use crate::queue::Job;

/// The claimed jobs, and what the statement saw on its way to them.
#[derive(Debug)]
pub(in crate::queue) struct Answer {
    /// In the order in which they are to run.
    pub(in crate::queue) jobs: Vec<Job>,
    /// Up to when jobs were due.
    pub(super) due: SystemTime,
    /// How many pages the table of jobs has.
    pub(in crate::queue) pages: i32,
    /// Priorities that were not among the steps.
    pub(super) found: Vec<i16>,
    /// How long the walk over jobs without a queue took.
    pub(super) free_took: Duration,
    /// And the one over jobs in queues.
    pub(super) queued_took: Duration,
    /// The last job that it saw, if it did not see all, with the highest id of its crowd.
    pub(super) last_queued: Option<(Spot, Option<i64>)>,
    /// Queues of which it saw a job that was not claimed, and the first such job.
    pub(super) passed: Vec<(i32, Spot)>,
    /// Queues that were said to wait and do not.
    pub(super) gone: Vec<i32>,
}

impl Answer {
    pub(in crate::queue) fn read(rows: &[Row]) -> Result<Self, tokio_postgres::Error> {
        let mut answer = Self {
            jobs: Vec::with_capacity(rows.len()),
            due: SystemTime::UNIX_EPOCH,
            pages: 0,
            found: Vec::new(),
            free_took: Duration::ZERO,
            queued_took: Duration::ZERO,
            last_queued: None,
            passed: Vec::new(),
            gone: Vec::new(),
        };
        let took = |row: &Row| -> Result<Duration, tokio_postgres::Error> {
            Ok(Duration::from_micros(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default()))
        };
        for row in rows {
            match row.try_get::<_, i16>(15)? {
                JOB => answer.jobs.push(Job::from_row(row)?),
                PASSED => answer.passed.push((row.try_get(2)?, (row.try_get(5)?, row.try_get(6)?))),
                GONE => answer.gone.push(row.try_get(2)?),
                FOUND => answer.found.push(row.try_get(5)?),
                FREE_WALK => {
                    (answer.free_took, answer.due, answer.pages) = (took(row)?, row.try_get(6)?, row.try_get(13)?);
                }
                QUEUED_WALK => answer.queued_took = took(row)?,
                LAST_QUEUED => {
                    let is_crowd = row.try_get::<_, i32>(1)? >= CROWD;
                    let id = if is_crowd { Some(row.try_get(0)?) } else { None };
                    answer.last_queued = Some(((row.try_get(5)?, row.try_get(6)?), id));
                }
                other => debug_assert!(false, "no row is of the kind {other}"),
            }
        }
        answer.jobs.sort_by_key(|job| (job.priority, job.run_at, job.id));
        Ok(answer)
    }
}
