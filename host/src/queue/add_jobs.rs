//! Adds many jobs with one statement, by the function that every other program calls.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use tokio_postgres::types::{ToSql, Type};

use super::{
    AddedJob, Job, NewJob, QueueError,
    add_job::{TRIES, lost_to_a_race},
    adding::Statements,
    request_order::RequestOrder,
};

const WHAT: &str = "add jobs";

/// One statement and one value in it have to stay below 1 GiB, in which each job takes some space of its own.
const LARGEST_CALL: usize = 900 << 20;
const PER_JOB: usize = 256;

/// $1 identifiers, $2 payloads, $3 queues, $4 times, $5 attempts, $6 keys, $7 priorities, $8 flags, $9 modes; flags as JSON,
/// because arrays of arrays must be rectangular. The function for many jobs has one mode for all of them, and does not know
/// the third one. It is not called for no jobs, because it would notify.
const SQL: &str = "
with
  spec as (
    select *
    from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) with ordinality
      as spec (identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, mode, place)
  ),
  listed as (
    select
      mode, place,
      row(
        identifier, payload::json, queue_name, run_at, max_attempts, job_key, priority,
        case when flags is not null then array(select json_array_elements_text(flags::json)) end
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

/// $1 ids of queues, $2 ids of tasks.
const NAMES: &str = "
select true as of_queue, id, queue_name from @schema@._private_job_queues where id = any ($1)
union all
select false, id, identifier from @schema@._private_tasks where id = any ($2)";

/// The rows come in another order than they were asked for, and without the names of tasks and queues.
pub(super) async fn run(to: &impl Statements, new: &[NewJob]) -> Result<Vec<AddedJob>, QueueError> {
    check(new)?;
    let mut order = RequestOrder::new(new);
    for _ in 0..TRIES {
        let missing: Vec<&NewJob> = order.missing().map(|place| &new[place]).collect();
        if missing.is_empty() {
            return Ok(order.finish());
        }
        order.assign(add_once(to, &missing).await?);
    }
    let lost = order.missing().next();
    lost.map_or_else(|| Ok(order.finish()), |place| Err(lost_to_a_race(&new[place])))
}

async fn add_once(to: &impl Statements, new: &[&NewJob]) -> Result<Vec<AddedJob>, QueueError> {
    let identifiers: Vec<&str> = new.iter().map(|job| job.identifier.as_str()).collect();
    let payloads: Vec<Option<&str>> = new.iter().map(|job| job.payload.as_deref()).collect();
    let queue_names: Vec<Option<&str>> = new.iter().map(|job| job.queue_name.as_deref()).collect();
    let times: Vec<Option<SystemTime>> = new.iter().map(|job| job.run_at).collect();
    let max_attempts: Vec<Option<i16>> = new.iter().map(|job| job.max_attempts).collect();
    let keys: Vec<Option<&str>> = new.iter().map(|job| job.job_key.as_deref()).collect();
    let priorities: Vec<Option<i16>> = new.iter().map(|job| job.priority).collect();
    let flags = |job: &&NewJob| (!job.flags.is_empty()).then(|| serde_json::json!(job.flags).to_string());
    let flags: Vec<Option<String>> = new.iter().map(flags).collect();
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
    let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
    let rows = to.rows(WHAT, SQL, &parameters).await?;
    let jobs = rows.iter().map(|row| Job::from_row(row).map_err(read)).collect::<Result<Vec<Job>, QueueError>>()?;
    name(to, jobs).await
}

/// Looks up what the ids of queues and tasks stand for. The statement itself does not see those that it made.
async fn name(to: &impl Statements, jobs: Vec<Job>) -> Result<Vec<AddedJob>, QueueError> {
    const WHAT: &str = "look up the names of queues and tasks";
    let distinct = |ids: HashSet<i32>| Vec::from_iter(ids);
    let queues = distinct(jobs.iter().filter_map(|job| job.job_queue_id).collect());
    let tasks = distinct(jobs.iter().map(|job| job.task_id).collect());
    let mut names: HashMap<(bool, i32), String> = HashMap::new();
    for row in to.rows(WHAT, NAMES, &[(&queues, Type::INT4_ARRAY), (&tasks, Type::INT4_ARRAY)]).await? {
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let of_queue = row.try_get(0).map_err(read)?;
        names.insert((of_queue, row.try_get(1).map_err(read)?), row.try_get(2).map_err(read)?);
    }
    let named = jobs.into_iter().map(|mut job| {
        job.queue_name = job.job_queue_id.and_then(|id| names.get(&(true, id)).cloned());
        AddedJob { task: names.get(&(false, job.task_id)).cloned().unwrap_or_default(), job }
    });
    Ok(named.collect())
}

/// What is wrong with the jobs, in a sentence that says which one it is.
fn check(new: &[NewJob]) -> Result<(), QueueError> {
    let refuse = |reason: String| Err(QueueError::BadJob { reason });
    check_size(new.iter().map(NewJob::size))?;
    let mut keys: HashMap<&str, usize> = HashMap::new();
    for (place, job) in (1..).zip(new) {
        if let Err(reason) = job.check() {
            return refuse(format!("number {place} of {} (task {:.60}): {reason}", new.len(), job.identifier));
        }
        if let Some(key) = &job.job_key
            && let Some(first) = keys.insert(key, place)
        {
            return refuse(format!(
                "numbers {first} and {place} of {} have the same key {key:?}: leave one of them out, or add them one after \
                 the other",
                new.len()
            ));
        }
    }
    Ok(())
}

fn check_size(sizes: impl ExactSizeIterator<Item = usize>) -> Result<(), QueueError> {
    let jobs = sizes.len();
    let size = sizes.fold(0_usize, |sum, size| sum.saturating_add(size).saturating_add(PER_JOB));
    if size <= LARGEST_CALL {
        return Ok(());
    }
    Err(QueueError::BadJob {
        reason: format!(
            "{jobs} jobs with {} MB together are more than one call can add, which is about {} MB: add them in several calls",
            size >> 20,
            LARGEST_CALL >> 20
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_statement_can_hold_is_refused_with_the_way_out() {
        assert!(check_size([60 << 20; 14].into_iter()).is_ok());
        let refused = check_size([60 << 20; 16].into_iter()).unwrap_err().to_string();
        assert!(refused.contains("16 jobs with 960 MB") && refused.contains("several calls"), "{refused}");
    }
}
