//! Adds jobs, by the functions that every other program calls.

use std::{collections::HashMap, time::SystemTime};

use tokio_postgres::types::{ToSql, Type};

use super::{Job, NewJob, QueueError, Session};

/// How often a keyed job is added again that was lost to a race: each loss means that the job under the key was claimed or
/// finished in that moment, so the next try meets another state.
const TRIES: usize = 10;

/// $1 identifier, $2 payload, $3 queue, $4 time, $5 attempts, $6 key, $7 priority, $8 flags, $9 mode. A queue that came
/// into being by this call is not seen by the join, and it is the one that was asked for.
const ADD_JOB: &str = "
select
  job.id, job.task_id, job.job_queue_id,
  case when job.job_queue_id is not null then coalesce(queue.queue_name, $3) end,
  job.payload::text, job.priority, job.run_at, job.attempts, job.max_attempts, job.last_error, job.created_at,
  job.updated_at, job.key, job.revision, job.flags::text
from @schema@.add_job(
  identifier => $1,
  payload => $2::json,
  queue_name => $3,
  run_at => $4,
  max_attempts => $5,
  job_key => $6,
  priority => $7,
  flags => $8,
  job_key_mode => $9
) as job
left join @schema@._private_job_queues as queue on queue.id = job.job_queue_id";

/// As above, each an array; flags as JSON, because arrays of arrays must be rectangular. The function for many jobs has one
/// mode for all of them, and does not know the third one. It is not called for no jobs, because it would notify.
const ADD_JOBS: &str = "
with
  spec as (
    select *
    from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) with ordinality
      as spec (identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, mode, place)
  ),
  listed as (
    select
      mode, place, job_key,
      row(
        identifier, payload::json, queue_name, run_at, max_attempts, job_key, priority,
        (select array_agg(flag) from json_array_elements_text(flags::json) as flag)
      )::@schema@.job_spec as spec
    from spec
  ),
  added as (
    select job.*
    from (
      select array_agg(spec order by place) as specs, mode = 'preserve_run_at' as preserve
      from listed
      where mode <> 'unsafe_dedupe'
      group by mode
    ) as batch
    cross join lateral @schema@.add_jobs(batch.specs, batch.preserve) as job
    union all
    select job.*
    from listed
    cross join lateral @schema@.add_job(
      identifier => (listed.spec).identifier,
      payload => (listed.spec).payload,
      queue_name => (listed.spec).queue_name,
      run_at => (listed.spec).run_at,
      max_attempts => (listed.spec).max_attempts,
      job_key => (listed.spec).job_key,
      priority => (listed.spec).priority,
      flags => (listed.spec).flags,
      job_key_mode => 'unsafe_dedupe'
    ) as job
    where listed.mode = 'unsafe_dedupe'
  )
select
  id, task_id, job_queue_id, null::text, payload::text, priority, run_at, attempts, max_attempts, last_error, created_at,
  updated_at, key, revision, flags::text
from added
order by id";

/// $1 ids of queues.
const QUEUE_NAMES: &str = "select id, queue_name from @schema@._private_job_queues where id = any ($1)";

impl Session {
    /// Adds a job, or changes the one under its key, and returns it as it is stored.
    pub async fn add_job(&self, new: &NewJob) -> Result<Job, QueueError> {
        const WHAT: &str = "add a job";
        let flags = (!new.flags.is_empty()).then_some(&new.flags);
        let max_attempts = new.max_attempts.map(i32::from);
        let priority = new.priority.map(i32::from);
        let mode = new.job_key_mode.as_str();
        let parameters: [(&(dyn ToSql + Sync), Type); 9] = [
            (&new.identifier, Type::TEXT),
            (&new.payload, Type::TEXT),
            (&new.queue_name, Type::TEXT),
            (&new.run_at, Type::TIMESTAMPTZ),
            (&max_attempts, Type::INT4),
            (&new.job_key, Type::TEXT),
            (&priority, Type::INT4),
            (&flags, Type::TEXT_ARRAY),
            (&mode, Type::TEXT),
        ];
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        for _ in 0..TRIES {
            let rows = self.query(WHAT, ADD_JOB, &parameters).await?;
            let added = rows.first().ok_or_else(|| lost_to_a_race(new))?;
            // A row of nulls says that a worker took the job under the key while it was about to be changed.
            if added.try_get::<_, Option<i64>>(0).map_err(read)?.is_some() {
                return Job::from_row(added).map_err(read);
            }
        }
        Err(lost_to_a_race(new))
    }

    /// Adds all of the jobs or, on an error, none of them, and returns them by id. Two jobs of one call may not have the
    /// same key. A keyed job is missing in the answer if a worker took the job under its key in the same moment.
    pub async fn add_jobs(&self, new: &[NewJob]) -> Result<Vec<Job>, QueueError> {
        const WHAT: &str = "add jobs";
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let identifiers: Vec<&str> = new.iter().map(|job| job.identifier.as_str()).collect();
        let payloads: Vec<Option<&str>> = new.iter().map(|job| job.payload.as_deref()).collect();
        let queue_names: Vec<Option<&str>> = new.iter().map(|job| job.queue_name.as_deref()).collect();
        let times: Vec<Option<SystemTime>> = new.iter().map(|job| job.run_at).collect();
        let max_attempts: Vec<Option<i16>> = new.iter().map(|job| job.max_attempts).collect();
        let keys: Vec<Option<&str>> = new.iter().map(|job| job.job_key.as_deref()).collect();
        let priorities: Vec<Option<i16>> = new.iter().map(|job| job.priority).collect();
        let flags: Vec<String> = new.iter().map(|job| serde_json::Value::from(job.flags.clone()).to_string()).collect();
        let modes: Vec<&str> = new.iter().map(|job| job.job_key_mode.as_str()).collect();
        let parameters: [(&(dyn ToSql + Sync), Type); 9] = [
            (&identifiers, Type::TEXT_ARRAY),
            (&payloads, Type::TEXT_ARRAY),
            (&queue_names, Type::TEXT_ARRAY),
            (&times, Type::TIMESTAMPTZ_ARRAY),
            (&max_attempts, Type::INT2_ARRAY),
            (&keys, Type::TEXT_ARRAY),
            (&priorities, Type::INT2_ARRAY),
            (&flags, Type::TEXT_ARRAY),
            (&modes, Type::TEXT_ARRAY),
        ];
        let rows = self.query(WHAT, ADD_JOBS, &parameters).await?;
        let mut jobs = rows
            .iter()
            .map(|row| Job::from_row(row).map_err(|error| QueueError::statement(WHAT, &error)))
            .collect::<Result<Vec<Job>, QueueError>>()?;
        self.name_queues(&mut jobs).await?;
        Ok(jobs)
    }

    async fn name_queues(&self, jobs: &mut [Job]) -> Result<(), QueueError> {
        const WHAT: &str = "look up the names of queues";
        let ids: Vec<i32> = jobs.iter().filter_map(|job| job.job_queue_id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut names: HashMap<i32, String> = HashMap::new();
        for row in self.query(WHAT, QUEUE_NAMES, &[(&ids, Type::INT4_ARRAY)]).await? {
            let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
            names.insert(row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?);
        }
        for job in jobs {
            job.queue_name = job.job_queue_id.and_then(|id| names.get(&id).cloned());
        }
        Ok(())
    }
}

fn lost_to_a_race(new: &NewJob) -> QueueError {
    QueueError::BadJob {
        reason: format!(
            "the job under the key {:?} was taken by a worker each time that it was about to be changed ({TRIES} times); \
             add it again",
            new.job_key.as_deref().unwrap_or_default()
        ),
    }
}
