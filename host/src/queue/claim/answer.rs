//! What the statement that claims answers.

use std::time::{Duration, SystemTime};

use tokio_postgres::Row;

use super::{CROWD, waiting::Spot};
use crate::queue::Job;

/// What a row of the answer is, in its last column. All but jobs have nulls in the columns that are not named here.
const JOB: i16 = 0;
/// `id`, `job_queue_id`, `priority`, `run_at`: the first job of a queue that was passed.
const PASSED: i16 = 1;
/// `job_queue_id`: of the queues in question, one that is free and has nothing near, or that does not exist.
const GONE: i16 = 2;
/// `priority`: there is one that was not among the steps.
const FOUND: i16 = 3;
/// `id`: the microseconds that the walk over jobs without a queue took; `task_id`: how many of the tasks have the ids that were
/// given; `queue_name`: the file in which the table of jobs is stored; `run_at`: the time by which jobs were due; `created_at`: the
/// time by which they were locked; `revision`: the size of the table, in pages.
const FREE_WALK: i16 = 4;
/// `id`: the microseconds that the walk over jobs in queues took.
const QUEUED_WALK: i16 = 5;
/// If that walk did not see all: `priority`, `run_at`: the last that it saw; `task_id`: how many of the same moment; `id`: the
/// highest of their ids.
const LAST_QUEUED: i16 = 6;

/// The claimed jobs, and what the statement saw on its way to them.
#[derive(Debug)]
pub(in crate::queue) struct Answer {
    /// In the order in which they are to run.
    pub(in crate::queue) jobs: Vec<Job>,
    /// Up to when jobs were due.
    pub(super) due: SystemTime,
    /// When the jobs were locked.
    pub(in crate::queue) locked_at: Option<SystemTime>,
    /// How many pages the table of jobs has.
    pub(in crate::queue) pages: i32,
    /// The file in which it is stored: another one once the table was emptied by `truncate`, or made anew.
    pub(super) file: Option<String>,
    /// How many of the tasks have the ids by which they were asked for.
    pub(in crate::queue) right_ids: usize,
    /// Priorities that were not among the steps.
    pub(super) found: Vec<i16>,
    /// How long the walk over jobs without a queue took.
    pub(super) free_took: Duration,
    /// And the one over jobs in queues.
    pub(super) queued_took: Duration,
    /// The last job that it saw, if it did not see all, with the highest id of its crowd.
    pub(super) last_queued: Option<(Spot, Option<i64>)>,
    /// Queues of which it saw a job that was not claimed, and the first such job.
    pub(super) passed: Vec<(i32, Spot, i64)>,
    /// Queues that were said to wait and do not.
    pub(super) gone: Vec<i32>,
}

impl Answer {
    /// `waited` is how long the answer took, by this process.
    pub(in crate::queue) fn read(rows: &[Row], waited: Duration) -> Result<Self, tokio_postgres::Error> {
        let mut answer = Self {
            jobs: Vec::with_capacity(rows.len()),
            due: SystemTime::UNIX_EPOCH,
            locked_at: None,
            pages: 0,
            file: None,
            right_ids: usize::MAX,
            found: Vec::new(),
            free_took: Duration::ZERO,
            queued_took: Duration::ZERO,
            last_queued: None,
            passed: Vec::new(),
            gone: Vec::new(),
        };
        // Postgres tells it by a clock that may have been set meanwhile, and then by hours.
        let took = |row: &Row| -> Result<Duration, tokio_postgres::Error> {
            Ok(Duration::from_micros(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default()).min(waited))
        };
        for row in rows {
            match row.try_get::<_, i16>(15)? {
                JOB => answer.jobs.push(Job::from_row(row)?),
                PASSED => {
                    let spot = (row.try_get(5)?, row.try_get(6)?);
                    answer.passed.push((row.try_get(2)?, spot, row.try_get(0)?));
                }
                GONE => answer.gone.push(row.try_get(2)?),
                FOUND => answer.found.push(row.try_get(5)?),
                FREE_WALK => {
                    (answer.free_took, answer.due, answer.pages) = (took(row)?, row.try_get(6)?, row.try_get(13)?);
                    answer.locked_at = row.try_get(10)?;
                    answer.file = row.try_get(3)?;
                    answer.right_ids = usize::try_from(row.try_get::<_, i32>(1)?).unwrap_or_default();
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
