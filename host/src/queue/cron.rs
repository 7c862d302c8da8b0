//! Adds the jobs of the schedules that are due in one minute, each once in the whole fleet.

use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};

use super::{NewJob, QueueError, Session};

/// A job that a schedule asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronJob {
    /// The schedule's name in the database.
    pub identifier: String,
    pub job: NewJob,
}

/// $1 minute; arrays: $2 identifiers, $3 tasks, $4 payloads, $5 queues, $6 attempts, $7 keys, $8 priorities, $9 modes.
///
/// The row of a schedule is what makes its job be added once: whoever moves it forward to the minute adds the job in the same
/// statement, and everybody else finds that it has been there. Rows are written in the order of the schedules, which is the
/// order of other programs with the same crontab, so that two of them wait for each other at most once.
///
/// A keyed job that a worker takes in the moment in which it is about to be changed is neither changed nor added, and the
/// function answers with nulls. The next call meets another state. The key is given by an expression on `try`, for the
/// function would be called but once if nothing in the call depended on it.
const SQL: &str = "
with
  due as (
    select *
    from unnest($2, $3, $4, $5, $6, $7, $8, $9) with ordinality
      as due (identifier, task, payload, queue_name, max_attempts, job_key, priority, mode, place)
  ),
  claimed as (
    insert into @schema@._private_known_crontabs as known (identifier, known_since, last_execution)
    select due.identifier, $1, $1
    from due
    order by due.place
    on conflict (identifier) do update
      set last_execution = excluded.last_execution
      where known.last_execution is null or known.last_execution < excluded.last_execution
    returning known.identifier
  ),
  ours as (
    select due.*
    from due
    join claimed on claimed.identifier = due.identifier
    order by due.place
  )
select ours.identifier, added.id
from ours
left join lateral (
  select job.id
  from generate_series(1, 10) as try
  cross join lateral @schema@.add_job(
    identifier => ours.task,
    payload => ours.payload::json,
    queue_name => ours.queue_name,
    run_at => $1,
    max_attempts => ours.max_attempts,
    job_key => case when try > 0 then ours.job_key end,
    priority => ours.priority,
    job_key_mode => ours.mode
  ) as job
  where job.id is not null
  limit 1
) as added on true";

impl Session {
    /// Adds the jobs of this minute whose schedules have not been carried out at it or later by anybody, all or, on an error,
    /// none. Returns the identifiers of these schedules. No two of the jobs may be of the same schedule.
    ///
    /// When the connection is lost, it is safe to ask again: what was stored is not added a second time.
    pub async fn add_cron_jobs(&self, minute: Timestamp, jobs: &[CronJob]) -> Result<Vec<String>, QueueError> {
        const WHAT: &str = "add the jobs of schedules";
        let identifiers: Vec<&str> = jobs.iter().map(|due| due.identifier.as_str()).collect();
        let tasks: Vec<&str> = jobs.iter().map(|due| due.job.identifier.as_str()).collect();
        let payloads: Vec<Option<&str>> = jobs.iter().map(|due| due.job.payload.as_deref()).collect();
        let queue_names: Vec<Option<&str>> = jobs.iter().map(|due| due.job.queue_name.as_deref()).collect();
        let max_attempts: Vec<Option<i32>> = jobs.iter().map(|due| due.job.max_attempts.map(i32::from)).collect();
        let keys: Vec<Option<&str>> = jobs.iter().map(|due| due.job.job_key.as_deref()).collect();
        let priorities: Vec<Option<i32>> = jobs.iter().map(|due| due.job.priority.map(i32::from)).collect();
        let modes: Vec<&str> = jobs.iter().map(|due| due.job.job_key_mode.as_str()).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 9] = [
            (&minute, Type::TIMESTAMPTZ),
            (&identifiers, Type::TEXT_ARRAY),
            (&tasks, Type::TEXT_ARRAY),
            (&payloads, Type::TEXT_ARRAY),
            (&queue_names, Type::TEXT_ARRAY),
            (&max_attempts, Type::INT4_ARRAY),
            (&keys, Type::TEXT_ARRAY),
            (&priorities, Type::INT4_ARRAY),
            (&modes, Type::TEXT_ARRAY),
        ];
        let rows = self.query(WHAT, SQL, &parameters).await?;
        rows.iter().map(|row| row.try_get(0).map_err(|error| QueueError::statement(WHAT, &error))).collect()
    }
}
