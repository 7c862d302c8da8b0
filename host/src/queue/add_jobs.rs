//! Adds many jobs with one statement, by the function that every other program calls.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use tokio_postgres::types::{ToSql, Type};

use super::{
    AddedJob, Job, JobKeyMode, NewJob, QueueError,
    add_job::{TRIES, lost_to_a_race},
    add_statements::Statements,
    request_order::{RequestOrder, is_in_order},
    text::text,
};

const WHAT: &str = "add jobs";

/// One statement and one value in it have to stay below 1 GiB, in which each job takes some space of its own.
const LARGEST_CALL: usize = 900 << 20;
const PER_JOB: usize = 256;

/// $1 identifiers, $2 payloads, $3 queues, $4 times, $5 attempts, $6 keys, $7 priorities, $8 flags, $9 an identifier; by
/// [`Columns`]. Arrays end where only nulls would follow. Flags are the text of an array, because arrays of arrays must be
/// rectangular.
macro_rules! spec {
    () => {
        "
      row(
        coalesce(identifier, $9), payload::json, queue_name, run_at, max_attempts, job_key, priority, flags::text[]
      )::@schema@.job_spec"
    };
}

/// As above, and $10 whether the time of the job under the key is kept. Without sorting and joining anything: at a hundred
/// thousand jobs Postgres would do that on disk.
macro_rules! one_mode {
    ($select:literal) => {
        concat!(
            "select ",
            $select,
            "
from @schema@.add_jobs(
  array(
    select",
            spec!(),
            "
    from unnest($1, $2, $3, $4, $5, $6, $7, $8)
      as spec (identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags)
  ),
  $10
) as job"
        )
    };
}

const ONE_MODE: &str = one_mode!(
    "
  id, task_id, job_queue_id, null::text, payload::text, priority, run_at, attempts, max_attempts, last_error, created_at,
  updated_at, key, revision, flags::text"
);

const ONE_MODE_COUNTED: &str = one_mode!("count(*), array_agg(key) filter (where key is not null)");

/// As above, and $10 modes. The function for many jobs has one mode for all of them, and does not know the third one. It is
/// not called for no jobs, because it would notify.
const SEVERAL_MODES: &str = concat!(
    "
with
  listed as (
    select
      mode, place,",
    spec!(),
    " as spec
    from unnest($1, $2, $3, $4, $5, $6, $7, $8, $10) with ordinality
      as spec (identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, mode, place)
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
from added"
);

/// $1 ids of queues, $2 ids of tasks.
const NAMES: &str = "
select true as of_queue, id, queue_name from @schema@._private_job_queues where id = any ($1)
union all
select false, id, identifier from @schema@._private_tasks where id = any ($2)";

/// The rows come without the names of tasks and queues, and in an order that nothing promises: the schema may be of another
/// program, whose function joins the jobs with their tasks as it likes. Where they are seen to be in the order of the
/// requests, as they mostly are, that is all; otherwise each is looked for.
pub(super) async fn run(to: &impl Statements, new: &[NewJob]) -> Result<Vec<AddedJob>, QueueError> {
    check(new)?;
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let added = add_once(to, &new.iter().collect::<Vec<_>>()).await?;
    if is_in_order(new, &added) {
        return Ok(added);
    }
    let mut order = RequestOrder::new(new);
    order.assign(added);
    for _ in 1..TRIES {
        let missing: Vec<&NewJob> = order.missing().map(|place| &new[place]).collect();
        if missing.is_empty() {
            return Ok(order.finish());
        }
        order.assign(add_once(to, &missing).await?);
    }
    let lost = order.missing().next();
    lost.map_or_else(|| Ok(order.finish()), |place| Err(lost_to_a_race(&new[place])))
}

/// As above, with only the number of rows.
pub(super) async fn run_unread(to: &impl Statements, new: &[NewJob]) -> Result<u64, QueueError> {
    check(new)?;
    let all: Vec<&NewJob> = new.iter().collect();
    let Some(mode) = one_mode(&all).filter(|_| !new.is_empty()) else {
        return run(to, new).await.map(|added| added.len() as u64);
    };
    let preserve = mode == JobKeyMode::PreserveRunAt;
    let rows = to.rows(WHAT, ONE_MODE_COUNTED, &Columns::of(&all).parameters(&(&preserve, Type::BOOL))).await?;
    let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
    let Some(row) = rows.first() else { return Ok(0) };
    let count: i64 = row.try_get(0).map_err(read)?;
    let count = u64::try_from(count).unwrap_or_default();
    if count >= new.len() as u64 {
        return Ok(count);
    }
    // Those that a worker took in that moment.
    let keys: HashSet<&str> = row.try_get::<_, Option<Vec<&str>>>(1).map_err(read)?.into_iter().flatten().collect();
    let is_lost = |job: &&NewJob| job.job_key.as_deref().is_some_and(|key| !keys.contains(key));
    let lost: Vec<NewJob> = new.iter().filter(is_lost).cloned().collect();
    Ok(count + run(to, &lost).await?.len() as u64)
}

async fn add_once(to: &impl Statements, new: &[&NewJob]) -> Result<Vec<AddedJob>, QueueError> {
    let columns = Columns::of(new);
    let rows = match one_mode(new) {
        Some(mode) => {
            let preserve = mode == JobKeyMode::PreserveRunAt;
            to.rows(WHAT, ONE_MODE, &columns.parameters(&(&preserve, Type::BOOL))).await?
        }
        None => {
            let modes: Vec<&str> = new.iter().map(|job| mode_of(job).as_str()).collect();
            to.rows(WHAT, SEVERAL_MODES, &columns.parameters(&(&modes, Type::TEXT_ARRAY))).await?
        }
    };
    let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
    let mut jobs = rows.iter().map(|row| Job::from_row(row).map_err(read)).collect::<Result<Vec<Job>, QueueError>>()?;
    drop(rows);
    if !jobs.is_sorted_by_key(|job| job.id) {
        jobs.sort_unstable_by_key(|job| job.id);
    }
    name(to, jobs).await
}

/// What the one call for all of them has to be told, if one will do.
fn one_mode(new: &[&NewJob]) -> Option<JobKeyMode> {
    // Without a key the mode means nothing.
    let mut modes = new.iter().filter(|job| job.job_key.is_some()).map(|job| job.job_key_mode);
    let first = modes.next().unwrap_or_default();
    (first != JobKeyMode::UnsafeDedupe && modes.all(|mode| mode == first)).then_some(first)
}

fn mode_of(job: &NewJob) -> JobKeyMode {
    if job.job_key.is_some() { job.job_key_mode } else { JobKeyMode::Replace }
}

/// The jobs as arrays, one for each field. A field that no job has is an empty array, to which the database adds as many
/// nulls as the payloads are; so is the task if all have the same.
struct Columns<'a> {
    identifiers: Vec<&'a str>,
    payloads: Vec<Option<&'a str>>,
    queue_names: Vec<Option<&'a str>>,
    times: Vec<Option<SystemTime>>,
    max_attempts: Vec<Option<i16>>,
    keys: Vec<Option<&'a str>>,
    priorities: Vec<Option<i16>>,
    flags: Vec<Option<String>>,
    identifier: Option<&'a str>,
}

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

impl<'a> Columns<'a> {
    fn of(new: &[&'a NewJob]) -> Self {
        let identifier = new.first().map(|job| job.identifier.as_str());
        let identifier = identifier.filter(|first| new.iter().all(|job| job.identifier == *first));
        Self {
            identifiers: match identifier {
                Some(_) => Vec::new(),
                None => new.iter().map(|job| job.identifier.as_str()).collect(),
            },
            payloads: new.iter().map(|job| job.payload.as_deref()).collect(),
            queue_names: column(new, |job| job.queue_name.as_deref()),
            times: column(new, |job| job.run_at),
            max_attempts: column(new, |job| job.max_attempts),
            keys: column(new, |job| job.job_key.as_deref()),
            priorities: column(new, |job| job.priority),
            flags: column(new, |job| (!job.flags.is_empty()).then(|| array_text(&job.flags))),
            identifier,
        }
    }

    fn parameters<'b>(&'b self, last: &'b Parameter<'b>) -> [Parameter<'b>; 10] {
        [
            (&self.identifiers, Type::TEXT_ARRAY),
            (&self.payloads, Type::TEXT_ARRAY),
            (&self.queue_names, Type::TEXT_ARRAY),
            (&self.times, Type::TIMESTAMPTZ_ARRAY),
            (&self.max_attempts, Type::INT2_ARRAY),
            (&self.keys, Type::TEXT_ARRAY),
            (&self.priorities, Type::INT2_ARRAY),
            (&self.flags, Type::TEXT_ARRAY),
            (&self.identifier, Type::TEXT),
            (last.0, last.1.clone()),
        ]
    }
}

/// The values up to the last one that there is.
fn column<'a, T>(new: &[&'a NewJob], value: impl Fn(&'a NewJob) -> Option<T>) -> Vec<Option<T>> {
    let values = new.iter().rposition(|job| value(job).is_some()).map_or(0, |last| last + 1);
    new[..values].iter().map(|job| value(job)).collect()
}

/// As Postgres reads an array of texts.
fn array_text(texts: &[String]) -> String {
    let mut array = String::from("{");
    for (place, text) in texts.iter().enumerate() {
        array.push_str(if place == 0 { "\"" } else { ",\"" });
        for character in text.chars() {
            if matches!(character, '"' | '\\') {
                array.push('\\');
            }
            array.push(character);
        }
        array.push('"');
    }
    array.push('}');
    array
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
        names.insert((of_queue, row.try_get(1).map_err(read)?), text(&row, 2).map_err(read)?);
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
