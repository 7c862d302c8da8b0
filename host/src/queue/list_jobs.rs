//! Finds jobs by what an administrator knows of them.

use std::time::SystemTime;

use tokio_postgres::types::{ToSql, Type};

use super::{
    JobState, QueueError, Session, StoredJob,
    stored_job::{names_sql, state_sql, stored_job_sql},
};

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

/// A worker that holds locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// What `locked_by` says.
    pub worker: String,
    pub jobs: i64,
    pub queues: i64,
    /// Its oldest lock.
    pub since: SystemTime,
}

/// How many jobs of a task are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobCount {
    pub task_identifier: String,
    pub state: JobState,
    pub jobs: i64,
}

/// $1 ids, $2 tasks, $3 queues, $4 keys, $5 states, $6 whether all of these wait to be run, $7 workers, $8 flags, $9 and $10
/// times; each null for no condition. Postgres sees their values when it plans the first calls, drops what is null, and uses
/// the indexes for the rest; $6 says what it could not conclude of the states.
macro_rules! matching_sql {
    () => {
        concat!(
            "
from @schema@._private_jobs as job",
            names_sql!(),
            "
where ($1::int8[] is null or job.id = any ($1))
  and ($2::text[] is null or task.identifier = any ($2))
  and ($3::text[] is null or queue.queue_name = any ($3))
  and ($4::text[] is null or job.key = any ($4))
  and ($5::text[] is null or ",
            state_sql!(),
            " = any ($5))
  and ($6::boolean is null or job.is_available)
  and ($7::text[] is null or job.locked_by = any ($7))
  and ($8::text[] is null or job.flags ?| $8)
  and ($9::timestamptz is null or job.created_at < $9)
  and ($10::timestamptz is null or job.created_at >= $10)"
        )
    };
}

macro_rules! list_sql {
    ($order:literal) => {
        concat!("select", stored_job_sql!(), matching_sql!(), "\norder by ", $order, "\nlimit $11")
    };
}

const OLDEST: &str = list_sql!("job.id");
const NEWEST: &str = list_sql!("job.id desc");
const BY_RUN_AT: &str = list_sql!("job.run_at, job.id");
const BY_PRIORITY: &str = list_sql!("job.priority, job.run_at, job.id");

const IDS: &str = concat!("select job.id", matching_sql!(), "\norder by job.id");

const COUNT: &str = concat!(
    "select coalesce(task.identifier, ''), ",
    state_sql!(),
    ", count(*)",
    matching_sql!(),
    "\ngroup by 1, 2\norder by 1, 2"
);

const LOCK_HOLDERS: &str = "
select
  locked_by,
  count(*) filter (where is_job),
  count(*) filter (where not is_job),
  min(locked_at)
from (
  select locked_by, locked_at, true as is_job from @schema@._private_jobs where locked_at is not null
  union all
  select locked_by, locked_at, false from @schema@._private_job_queues where locked_at is not null
) as lock
where locked_by is not null
group by locked_by
order by min(locked_at)";

impl Session {
    /// Up to `limit` of the jobs that the filter means.
    pub async fn list_jobs(
        &self,
        filter: &JobFilter,
        order: JobOrder,
        limit: usize,
    ) -> Result<Vec<StoredJob>, QueueError> {
        const WHAT: &str = "list jobs";
        let sql = match order {
            JobOrder::Oldest => OLDEST,
            JobOrder::Newest => NEWEST,
            JobOrder::RunAt => BY_RUN_AT,
            JobOrder::Priority => BY_PRIORITY,
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let conditions = Conditions::of(filter);
        let mut parameters = conditions.parameters().to_vec();
        parameters.push((&limit, Type::INT8));
        StoredJob::from_rows(WHAT, &self.query(WHAT, sql, &parameters).await?)
    }

    /// The ids of all jobs that the filter means.
    pub async fn find_job_ids(&self, filter: &JobFilter) -> Result<Vec<i64>, QueueError> {
        const WHAT: &str = "find jobs";
        let rows = self.query(WHAT, IDS, &Conditions::of(filter).parameters()).await?;
        rows.iter().map(|row| row.try_get(0).map_err(|error| QueueError::statement(WHAT, &error))).collect()
    }

    /// How many of the jobs that the filter means are of each task and in each state.
    pub async fn count_jobs(&self, filter: &JobFilter) -> Result<Vec<JobCount>, QueueError> {
        const WHAT: &str = "count jobs";
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let rows = self.query(WHAT, COUNT, &Conditions::of(filter).parameters()).await?;
        rows.iter()
            .map(|row| {
                Ok(JobCount {
                    task_identifier: row.try_get(0).map_err(read)?,
                    state: row.try_get::<_, &str>(1).map_err(read)?.parse().unwrap_or(JobState::Ready),
                    jobs: row.try_get(2).map_err(read)?,
                })
            })
            .collect()
    }

    /// Who holds locks on jobs or queues, the one with the oldest lock first.
    pub async fn lock_holders(&self) -> Result<Vec<LockHolder>, QueueError> {
        const WHAT: &str = "look at the locks";
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let rows = self.query(WHAT, LOCK_HOLDERS, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok(LockHolder {
                    worker: row.try_get(0).map_err(read)?,
                    jobs: row.try_get(1).map_err(read)?,
                    queues: row.try_get(2).map_err(read)?,
                    since: row.try_get(3).map_err(read)?,
                })
            })
            .collect()
    }
}

/// A filter as parameters of a statement.
struct Conditions<'a> {
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
}

impl<'a> Conditions<'a> {
    fn of(filter: &'a JobFilter) -> Self {
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
        }
    }

    fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 10] {
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
        ]
    }
}

fn unless_empty<T>(list: &[T]) -> Option<&[T]> {
    (!list.is_empty()).then_some(list)
}
