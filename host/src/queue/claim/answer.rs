//! The answer of a statement that claims: rows of jobs, then one row of facts about the claim, in named columns of its own.

use std::time::{Duration, SystemTime};

use tokio_postgres::Row;

use super::waiting::Spot;
use crate::queue::{Job, QueueError};

/// The number of equal times from which ties are scanned by id.
pub(super) const MIN_TIES: i32 = 64;

/// A column of the row of facts: its name, its type, and the expression that yields it.
pub(in crate::queue) type Fact = (&'static str, &'static str, &'static str);

/// Facts of every claim. The row comes after the jobs, so `@took@` may read the clock.
pub(in crate::queue) const FACTS: [Fact; 5] = [
    ("free_microseconds", "int8", "(extract(epoch from @took@) * 1000000)::int8"),
    ("known_tasks", "int4", "(select tasks from known)"),
    ("jobs_file", "text", "pg_relation_filenode(@jobs@)::text"),
    ("jobs_pages", "int4", "(pg_relation_size(@jobs@) / 8192)::int4"),
    ("due_at", "timestamptz", "@now@"),
];

/// Of a claim by ranges: the first priority in each gap.
pub(in crate::queue) const FOUND_PRIORITIES: Fact =
    ("found_priorities", "int2[]", "array(select found from scan_range where found is not null)");

/// Of a claim that locks jobs by a mark.
pub(super) const LOCKED_AT: Fact = ("locked_at", "timestamptz", "now()");

/// Of a claim of jobs with and without queues.
pub(super) const QUEUED_FACTS: [Fact; 10] = [
    (
        "queued_microseconds",
        "int8",
        "(select (extract(epoch from queued_scan.took - free_scan.took) * 1000000)::int8 from free_scan, queued_scan)",
    ),
    ("last_priority", "int2", "(select priority from last_scanned)"),
    ("last_run_at", "timestamptz", "(select run_at from last_scanned)"),
    ("last_ties", "int4", "(select ties from last_scanned)"),
    ("last_id", "int8", "(select id from last_scanned)"),
    ("passed_queues", "int4[]", "array(select job_queue_id from passed)"),
    ("passed_priorities", "int2[]", "array(select priority from passed)"),
    ("passed_run_at", "timestamptz[]", "array(select run_at from passed)"),
    ("passed_ids", "int8[]", "array(select id from passed)"),
    (
        "gone_queues",
        "int4[]",
        "array(select job_queue_id from single where id is null union all select queue_id from missed where gone)",
    ),
];

/// Selects the rows of `jobs`, with this number of columns, and then one row of facts.
pub(in crate::queue) fn with_facts<'a>(
    jobs: &str,
    columns: usize,
    facts: impl Iterator<Item = &'a Fact> + Clone,
) -> String {
    let empty: String = facts.clone().map(|(name, kind, _)| format!(",\n  null::{kind} as {name}")).collect();
    let values: String = facts.map(|(_, _, value)| format!(",\n  {value}")).collect();
    let nulls = vec!["null"; columns].join(", ");
    format!("select\n  job.*{empty}\nfrom {jobs} as job\nunion all\nselect\n  {nulls}{values}")
}

/// The claimed jobs, and facts about the claim.
#[derive(Debug)]
pub(in crate::queue) struct Answer {
    /// In the order of priority and time.
    pub(in crate::queue) jobs: Vec<Job>,
    /// The time up to which jobs were due.
    pub(super) due: SystemTime,
    /// The size of the table of jobs, in pages.
    pub(in crate::queue) pages: i32,
    /// The file of the table. `truncate` and a new installation change it.
    pub(super) file: Option<String>,
    /// The number of tasks that have the ids given.
    pub(in crate::queue) right_ids: usize,
    /// Priorities that had no range.
    pub(super) found: Vec<i16>,
    /// The time that the scan for jobs without a queue took.
    pub(super) free_took: Duration,
    /// Empty unless the claim looked for jobs in queues.
    pub(super) queued: Queued,
}

/// The result of the scan for jobs in queues.
#[derive(Debug, Default)]
pub(super) struct Queued {
    pub(super) took: Duration,
    /// The last scanned job of an incomplete scan, with the highest id of its ties if they are many.
    pub(super) last: Option<(Spot, Option<i64>)>,
    /// Queues with a job that was scanned and not claimed, and the first such job.
    pub(super) passed: Vec<(i32, Spot, i64)>,
    /// Waiting queues that are free and have no job near their position, or do not exist.
    pub(super) gone: Vec<i32>,
}

impl Answer {
    /// `waited` is the response time, by the clock of this process.
    pub(in crate::queue) fn read(what: &'static str, rows: &[Row], waited: Duration) -> Result<Self, QueueError> {
        let (facts, jobs) = rows.split_last().ok_or_else(|| QueueError::Statement {
            what,
            reason: "the answer has no row of facts".to_owned(),
            code: None,
            lost: false,
        })?;
        Self::of(facts, jobs, waited).map_err(|error| QueueError::statement(what, &error))
    }

    fn of(facts: &Row, jobs: &[Row], waited: Duration) -> Result<Self, tokio_postgres::Error> {
        let has = |name: &str| facts.columns().iter().any(|column| column.name() == name);
        let mut jobs: Vec<Job> = jobs.iter().map(Job::from_row).collect::<Result<_, _>>()?;
        if has("locked_at") {
            let locked_at = facts.try_get("locked_at")?;
            jobs.iter_mut().for_each(|job| job.locked_at = locked_at);
        }
        jobs.sort_by_key(|job| (job.priority, job.run_at, job.id));
        Ok(Self {
            jobs,
            due: facts.try_get("due_at")?,
            pages: facts.try_get("jobs_pages")?,
            file: facts.try_get("jobs_file")?,
            right_ids: usize::try_from(facts.try_get::<_, i32>("known_tasks")?).unwrap_or_default(),
            found: if has("found_priorities") { facts.try_get("found_priorities")? } else { Vec::new() },
            free_took: took(facts, "free_microseconds", waited)?,
            queued: if has("queued_microseconds") { Queued::of(facts, waited)? } else { Queued::default() },
        })
    }
}

impl Queued {
    fn of(facts: &Row, waited: Duration) -> Result<Self, tokio_postgres::Error> {
        let last = match facts.try_get("last_priority")? {
            None => None,
            Some(priority) => {
                let is_tied = facts.try_get::<_, i32>("last_ties")? >= MIN_TIES;
                let id = if is_tied { facts.try_get("last_id")? } else { None };
                Some(((priority, facts.try_get("last_run_at")?), id))
            }
        };
        let queues: Vec<i32> = facts.try_get("passed_queues")?;
        let priorities: Vec<i16> = facts.try_get("passed_priorities")?;
        let times: Vec<SystemTime> = facts.try_get("passed_run_at")?;
        let ids: Vec<i64> = facts.try_get("passed_ids")?;
        let spots = priorities.into_iter().zip(times);
        Ok(Self {
            took: took(facts, "queued_microseconds", waited)?,
            last,
            passed: queues.into_iter().zip(spots).zip(ids).map(|((queue, spot), id)| (queue, spot, id)).collect(),
            gone: facts.try_get("gone_queues")?,
        })
    }
}

/// A duration measured by Postgres, capped because its clock may have been set meanwhile.
fn took(facts: &Row, column: &str, waited: Duration) -> Result<Duration, tokio_postgres::Error> {
    Ok(Duration::from_micros(u64::try_from(facts.try_get::<_, i64>(column)?).unwrap_or_default()).min(waited))
}
