//! Counts jobs by task and state: all of them, or a sample where the table is large.

use tokio_postgres::types::{ToSql, Type};

use super::{
    JobFilter, JobState, QueueError, Session,
    list_jobs::{Conditions, matching_sql},
    stored_job::state_sql,
    text::text,
};

/// A table of up to so many pages (64 MB) is read as a whole.
const PAGES_READ: i64 = 8_192;
/// Of a larger one, about so many.
const PAGES_SAMPLED: i64 = 4_096;

/// How many jobs of a task are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobCount {
    pub task_identifier: String,
    pub state: JobState,
    pub jobs: i64,
}

/// How many jobs there are.
#[derive(Debug, Clone, PartialEq)]
pub struct JobCounts {
    pub counts: Vec<JobCount>,
    /// What part of the table was read; `None` if all of it was, so that the numbers are exact.
    pub sampled: Option<f64>,
}

macro_rules! count_sql {
    ($sample:literal) => {
        concat!(
            "select coalesce(task.identifier, ''), ",
            state_sql!(),
            ", count(*)",
            matching_sql!($sample),
            "\ngroup by 1, 2\norder by 1, 2"
        )
    };
}

const COUNT: &str = count_sql!("");

/// $13 how many per cent of the pages.
const COUNT_SAMPLE: &str = count_sql!(" tablesample system ($13)");

/// The size of the file, which is up to date where the statistics are not.
const PAGES: &str = "select pg_catalog.pg_relation_size(@jobs@) / pg_catalog.current_setting('block_size')::int8";

impl Session {
    /// How many of the jobs that the filter means are of each task and in each state. Reads each job.
    pub async fn count_jobs(&self, filter: &JobFilter) -> Result<Vec<JobCount>, QueueError> {
        self.count(COUNT, filter, None).await
    }

    /// The same, but of a large table no more than a sample is read, and the numbers are estimated. Tasks and states with few
    /// jobs may be missing then.
    pub async fn estimate_jobs(&self, filter: &JobFilter) -> Result<JobCounts, QueueError> {
        // Indexes find these.
        let few = !filter.ids.is_empty() || !filter.keys.is_empty();
        let sampled = if few { None } else { self.sample_of_jobs().await? };
        let Some(part) = sampled else {
            return Ok(JobCounts { counts: self.count_jobs(filter).await?, sampled: None });
        };
        let mut counts = self.count(COUNT_SAMPLE, filter, Some(part)).await?;
        counts.iter_mut().for_each(|count| count.jobs = scaled(count.jobs, part));
        Ok(JobCounts { counts, sampled })
    }

    /// What part of the table of jobs is to be read where estimates will do; `None` for all of it, because it is small.
    pub(super) async fn sample_of_jobs(&self) -> Result<Option<f64>, QueueError> {
        const WHAT: &str = "look at the size of the table of jobs";
        let rows = self.query(WHAT, PAGES, &[]).await?;
        let pages: i64 =
            rows.first().map_or(Ok(0), |row| row.try_get(0)).map_err(|error| QueueError::statement(WHAT, &error))?;
        Ok((pages > PAGES_READ).then(|| ratio(PAGES_SAMPLED, pages)))
    }

    async fn count(
        &self,
        sql: &'static str,
        filter: &JobFilter,
        part: Option<f64>,
    ) -> Result<Vec<JobCount>, QueueError> {
        const WHAT: &str = "count jobs";
        let conditions = Conditions::of(filter);
        let percent = part.map(per_cent);
        let mut parameters = conditions.parameters().to_vec();
        parameters.extend(percent.as_ref().map(|percent| (percent as &(dyn ToSql + Sync), Type::FLOAT4)));
        let rows = self.query(WHAT, sql, &parameters).await?;
        let count = |row: &tokio_postgres::Row| {
            Ok(JobCount {
                task_identifier: text(row, 0)?,
                state: row.try_get::<_, &str>(1)?.parse().unwrap_or(JobState::Ready),
                jobs: row.try_get(2)?,
            })
        };
        rows.iter().map(count).collect::<Result<_, _>>().map_err(|error| QueueError::statement(WHAT, &error))
    }
}

#[expect(clippy::cast_precision_loss, reason = "estimates of numbers of pages")]
fn ratio(sampled: i64, of: i64) -> f64 {
    sampled as f64 / of as f64
}

/// What `tablesample` takes.
#[expect(clippy::cast_possible_truncation, reason = "a percentage")]
pub(super) fn per_cent(part: f64) -> f32 {
    (part * 100.0) as f32
}

/// How many there are of what the sample has so many of.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an estimate")]
pub(super) fn scaled(count: i64, part: f64) -> i64 {
    (count as f64 / part).round() as i64
}
