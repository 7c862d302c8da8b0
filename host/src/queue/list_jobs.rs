//! Finds jobs by what an administrator knows of them.

use std::{fmt, pin::Pin, time::SystemTime};

use futures_util::TryStreamExt;
use tokio_postgres::{
    RowStream,
    types::{ToSql, Type},
};

use super::{JobState, QueueError, Session, StoredJob, retry::Retries, stored_job::stored_job_sql};

/// Which jobs are meant: those that fulfil all of the conditions that are set. An empty list is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    pub ids: Vec<i64>,
    pub tasks: Vec<String>,
    pub queues: Vec<String>,
    pub keys: Vec<String>,
    pub states: Vec<JobState>,
    /// What `locked_by` says.
    pub workers: Vec<String>,
    /// Jobs that have any of these flags.
    pub flags: Vec<String>,
    /// Added before this time.
    pub created_before: Option<SystemTime>,
    /// Added at this time or later.
    pub created_after: Option<SystemTime>,
    /// Failed before this time, whether for good or not. The database keeps no time of failure: it is worked out from `run_at`
    /// and `attempts`, which say how long the wait after it is, or is `updated_at` if somebody changed the job later.
    pub failed_before: Option<SystemTime>,
    /// Failed at this time or later.
    pub failed_after: Option<SystemTime>,
}

impl JobFilter {
    /// These jobs.
    pub fn ids(ids: &[i64]) -> Self {
        Self { ids: ids.to_vec(), ..Self::default() }
    }

    /// Whether it means all jobs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The order of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JobOrder {
    /// As they were added.
    #[default]
    Oldest,
    /// The last added first.
    Newest,
    /// By when they run.
    RunAt,
    /// As workers take them: by priority, then by time.
    Priority,
}

/// When a job that waits, or has failed for good, failed last; see `fail_jobs`.
macro_rules! failed_at_sql {
    () => {
        concat!("greatest(job.updated_at, job.run_at - ", $crate::queue::fail_jobs::retry_delay!("job.attempts"), ")")
    };
}

/// $1 ids, $2 tasks, $3 queues, $4 keys, $5 states, $6 whether all of these wait to be run, $7 workers, $8 flags, $9 and $10
/// when added, $11 and $12 when failed; each null for no condition. Postgres sees their values when it plans, drops what is
/// null, and uses the indexes for the rest; $6 says what it could not conclude of the states. `$sample` follows the table.
macro_rules! matching_sql {
    () => {
        $crate::queue::list_jobs::matching_sql!("")
    };
    ($sample:literal) => {
        concat!(
            "
from @schema@._private_jobs as job",
            $sample,
            $crate::queue::stored_job::names_sql!(),
            "
where ($1::int8[] is null or job.id = any ($1))
  and ($2::text[] is null or task.identifier = any ($2))
  and ($3::text[] is null or queue.queue_name = any ($3))
  and ($4::text[] is null or job.key = any ($4))
  and ($5::text[] is null or ",
            $crate::queue::stored_job::state_sql!(),
            " = any ($5))
  and ($6::boolean is null or job.is_available)
  and ($7::text[] is null or job.locked_by = any ($7))
  and ($8::text[] is null or job.flags ?| $8)
  and ($9::timestamptz is null or job.created_at < $9)
  and ($10::timestamptz is null or job.created_at >= $10)
  and (($11::timestamptz is null and $12::timestamptz is null)
    or (job.locked_at is null and job.attempts > 0 and job.last_error is not null))
  and ($11::timestamptz is null or ",
            $crate::queue::list_jobs::failed_at_sql!(),
            " < $11)
  and ($12::timestamptz is null or ",
            $crate::queue::list_jobs::failed_at_sql!(),
            " >= $12)"
        )
    };
}

pub(super) use {failed_at_sql, matching_sql};

macro_rules! list_sql {
    ($order:literal) => {
        concat!("select", stored_job_sql!(), matching_sql!(), "\norder by ", $order, "\nlimit $13")
    };
}

const OLDEST: &str = list_sql!("job.id");
const NEWEST: &str = list_sql!("job.id desc");
const BY_RUN_AT: &str = list_sql!("job.run_at, job.id");
const BY_PRIORITY: &str = list_sql!("job.priority, job.run_at, job.id");

/// $13 after this id, $14 up to this one, $15 how many. With the size of each, for those who read them next.
const FIND: &str = concat!(
    "select job.id, octet_length(job.payload::text) + coalesce(octet_length(job.last_error), 0)",
    matching_sql!(),
    "\n  and job.id > $13 and job.id <= $14\norder by job.id\nlimit $15"
);

/// $1 after this id, $2 up to this one, $3 how many jobs: the id of the last of them.
const END_OF_WINDOW: &str = "
select max(id)
from (
  select id from @schema@._private_jobs where id > $1 and id <= $2 order by id limit $3
) as next";

const LAST_ID: &str = "select coalesce(max(id), 0) from @schema@._private_jobs";

/// A job that is there, and how many bytes of text it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundJob {
    pub id: i64,
    pub bytes: i32,
}

/// Jobs as they are read: no more of them are in memory than the connection has read ahead.
pub struct JobStream<'a> {
    session: &'a Session,
    rows: Pin<Box<RowStream>>,
}

impl fmt::Debug for JobStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobStream").finish_non_exhaustive()
    }
}

impl JobStream<'_> {
    /// The next job, or `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<StoredJob>, QueueError> {
        let row = self.session.database().health().answer(LIST, self.rows.try_next()).await?;
        row.map(|row| StoredJob::from_row(&row).map_err(|error| QueueError::statement(LIST, &error))).transpose()
    }
}

const LIST: &str = "list jobs";

impl Session {
    /// Up to `limit` of the jobs that the filter means.
    pub async fn list_jobs(
        &self,
        filter: &JobFilter,
        order: JobOrder,
        limit: usize,
    ) -> Result<Vec<StoredJob>, QueueError> {
        let mut jobs = Vec::new();
        let mut stream = self.stream_jobs(filter, order, Some(limit)).await?;
        while let Some(job) = stream.next().await? {
            jobs.push(job);
        }
        Ok(jobs)
    }

    /// The same one after the other, for any number of jobs; all of them without a limit. The server looks at the table as it is
    /// now, until the last one is read.
    pub async fn stream_jobs(
        &self,
        filter: &JobFilter,
        order: JobOrder,
        limit: Option<usize>,
    ) -> Result<JobStream<'_>, QueueError> {
        let sql = self.database().render(match order {
            JobOrder::Oldest => OLDEST,
            JobOrder::Newest => NEWEST,
            JobOrder::RunAt => BY_RUN_AT,
            JobOrder::Priority => BY_PRIORITY,
        });
        let limit = limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let conditions = Conditions::of(filter);
        let mut parameters = conditions.parameters().to_vec();
        parameters.push((&limit, Type::INT8));
        let asked = self.client().query_typed_raw(&sql, parameters);
        let rows = Box::pin(self.database().health().answer(LIST, asked).await?);
        Ok(JobStream { session: self, rows })
    }

    /// The next `limit` of the jobs that the filter means, by their ids: those after `after`, and up to `up_to`.
    pub async fn find_jobs(
        &self,
        filter: &JobFilter,
        after: i64,
        up_to: i64,
        limit: usize,
    ) -> Result<Vec<FoundJob>, QueueError> {
        const WHAT: &str = "find jobs";
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let sql = self.database().render(FIND);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let conditions = Conditions::of(filter);
        let mut parameters = conditions.parameters().to_vec();
        parameters.extend([(&after as &(dyn ToSql + Sync), Type::INT8), (&up_to, Type::INT8), (&limit, Type::INT8)]);
        let mut retries = Retries::default();
        let rows = loop {
            match self.database().health().answer(WHAT, self.client().query_typed(&sql, &parameters)).await {
                Ok(rows) => break rows,
                Err(error) => retries.wait(error).await?,
            }
        };
        rows.iter()
            .map(|row| Ok(FoundJob { id: row.try_get(0)?, bytes: row.try_get(1)? }))
            .collect::<Result<_, _>>()
            .map_err(read)
    }

    /// The id of the last of the next `count` jobs after `after`, whatever they are; `None` if there is none up to `up_to`.
    ///
    /// Whoever looks for jobs window by window reads the table once. Without windows, Postgres may read and sort all of it for
    /// each call of [`Session::find_jobs`].
    pub async fn end_of_window(&self, after: i64, up_to: i64, count: usize) -> Result<Option<i64>, QueueError> {
        const WHAT: &str = "find jobs";
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&after, Type::INT8), (&up_to, Type::INT8), (&count, Type::INT8)];
        let rows = self.query(WHAT, END_OF_WINDOW, &parameters).await?;
        rows.first().map_or(Ok(None), |row| row.try_get(0)).map_err(|error| QueueError::statement(WHAT, &error))
    }

    /// The largest id of a job, 0 if there is none.
    pub async fn last_job_id(&self) -> Result<i64, QueueError> {
        const WHAT: &str = "find the last job";
        let rows = self.query(WHAT, LAST_ID, &[]).await?;
        rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(|error| QueueError::statement(WHAT, &error))
    }
}

/// A filter as parameters of a statement.
pub(super) struct Conditions<'a> {
    ids: Option<&'a [i64]>,
    tasks: Option<&'a [String]>,
    queues: Option<&'a [String]>,
    keys: Option<&'a [String]>,
    states: Option<Vec<&'static str>>,
    available: Option<bool>,
    workers: Option<&'a [String]>,
    flags: Option<&'a [String]>,
    created_before: Option<SystemTime>,
    created_after: Option<SystemTime>,
    failed_before: Option<SystemTime>,
    failed_after: Option<SystemTime>,
}

impl<'a> Conditions<'a> {
    pub(super) fn of(filter: &'a JobFilter) -> Self {
        let available = filter.states.iter().all(|state| !matches!(state, JobState::Running | JobState::Failed));
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        Self {
            ids: unless_empty(&filter.ids),
            tasks: unless_empty(&filter.tasks),
            queues: unless_empty(&filter.queues),
            keys: unless_empty(&filter.keys),
            available: (available && !states.is_empty()).then_some(true),
            states: (!states.is_empty()).then_some(states),
            workers: unless_empty(&filter.workers),
            flags: unless_empty(&filter.flags),
            created_before: filter.created_before,
            created_after: filter.created_after,
            failed_before: filter.failed_before,
            failed_after: filter.failed_after,
        }
    }

    pub(super) fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 12] {
        [
            (&self.ids, Type::INT8_ARRAY),
            (&self.tasks, Type::TEXT_ARRAY),
            (&self.queues, Type::TEXT_ARRAY),
            (&self.keys, Type::TEXT_ARRAY),
            (&self.states, Type::TEXT_ARRAY),
            (&self.available, Type::BOOL),
            (&self.workers, Type::TEXT_ARRAY),
            (&self.flags, Type::TEXT_ARRAY),
            (&self.created_before, Type::TIMESTAMPTZ),
            (&self.created_after, Type::TIMESTAMPTZ),
            (&self.failed_before, Type::TIMESTAMPTZ),
            (&self.failed_after, Type::TIMESTAMPTZ),
        ]
    }
}

fn unless_empty<T>(list: &[T]) -> Option<&[T]> {
    (!list.is_empty()).then_some(list)
}
