//! Changes jobs on an administrator's behalf, by the functions that every other program calls.
//!
//! These functions leave alone what a worker holds, unless its lock is older than four hours.

use std::{collections::BTreeMap, time::SystemTime};

use tokio_postgres::types::{ToSql, Type};

use super::{
    Bisection, QueueError, Session, StoredJob,
    stored_job::{names_sql, stored_job_sql},
    text::text,
};

/// $1 ids.
const COMPLETE_JOBS: &str =
    concat!("select", stored_job_sql!(), "\nfrom @schema@.complete_jobs($1) as job", names_sql!(), "\norder by job.id");

/// $1 ids, $2 reason.
const PERMANENTLY_FAIL_JOBS: &str = concat!(
    "select",
    stored_job_sql!(),
    "\nfrom @schema@.permanently_fail_jobs($1, $2) as job",
    names_sql!(),
    "\norder by job.id"
);

/// $1 ids, $2 time, $3 priority, $4 attempts, $5 the most attempts.
const RESCHEDULE_JOBS: &str = concat!(
    "select",
    stored_job_sql!(),
    "\nfrom @schema@.reschedule_jobs($1, run_at => $2, priority => $3, attempts => $4, max_attempts => $5) as job",
    names_sql!(),
    "\norder by job.id"
);

/// $1 ids. Those that were tried become due, and count as not tried.
const RETRY_JOBS: &str = concat!(
    "select",
    stored_job_sql!(),
    "
from (
  select coalesce(array_agg(id), '{}') as ids from @schema@._private_jobs where id = any ($1) and attempts > 0
) as tried
cross join lateral @schema@.reschedule_jobs(tried.ids, run_at => now(), attempts => 0) as job",
    names_sql!(),
    "\norder by job.id"
);

/// $1 key. Without such a job the function returns a row of nulls.
const REMOVE_JOB: &str = concat!(
    "select",
    stored_job_sql!(),
    "\nfrom @schema@.remove_job($1) as job",
    names_sql!(),
    "\nwhere job.id is not null"
);

/// $1 owners. The counts are of what was there when the statement began, before the function changes it.
const FORCE_UNLOCK_WORKERS: &str = "
with
  worker as (select distinct unnest($1) as id),
  held_jobs as (
    select locked_by, count(*) as jobs from @schema@._private_jobs where locked_by = any ($1) group by locked_by
  ),
  held_queues as (
    select locked_by, count(*) as queues from @schema@._private_job_queues where locked_by = any ($1) group by locked_by
  ),
  held as materialized (
    select worker.id, coalesce(jobs, 0) as jobs, coalesce(queues, 0) as queues
    from worker
    left join held_jobs on held_jobs.locked_by = worker.id
    left join held_queues on held_queues.locked_by = worker.id
  )
select held.id, held.jobs, held.queues
from (select @schema@.force_unlock_workers($1) as done) as unlocked
cross join held
order by held.id";

/// $1 owner.
const HELD_JOBS: &str = "select id from @schema@._private_jobs where locked_by = $1 order by id";

/// What the function does, for some of the jobs: $1 owner, $2 ids.
const UNLOCK_JOBS: &str = "
update @schema@._private_jobs
set locked_by = null, locked_at = null
where locked_by = $1 and id = any ($2)
returning id";

/// And for the queues: $1 owner.
const UNLOCK_QUEUES: &str = "
update @schema@._private_job_queues
set locked_by = null, locked_at = null
where locked_by = $1
returning id";

/// What is to be changed of jobs; `None` leaves it as it is. Zero is a value like any other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reschedule {
    /// Not before this time.
    pub run_at: Option<SystemTime>,
    /// Lower is sooner.
    pub priority: Option<i16>,
    /// How often it counts as tried.
    pub attempts: Option<i16>,
    /// How often it may be tried, from 1.
    pub max_attempts: Option<i16>,
}

/// What a worker held before its locks were taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnlockedWorker {
    /// What `locked_by` said.
    pub worker: String,
    pub jobs: i64,
    pub queues: i64,
    /// Jobs that it goes on holding, because the database refuses to unlock them, and what it says.
    pub refused: Vec<(i64, String)>,
}

impl Session {
    /// Deletes jobs as if they had been done, and returns them. Those that a worker holds, and ids that do not exist, are
    /// missing in the answer.
    pub async fn administer_complete(&self, ids: &[i64]) -> Result<Vec<StoredJob>, QueueError> {
        const WHAT: &str = "complete jobs";
        let rows = self.query(WHAT, COMPLETE_JOBS, &[(&ids, Type::INT8_ARRAY)]).await?;
        StoredJob::from_rows(WHAT, &rows)
    }

    /// Makes jobs fail for good, and returns them. Without a reason they get the database's own. Those that a worker holds,
    /// and ids that do not exist, are missing in the answer.
    pub async fn administer_fail(&self, ids: &[i64], reason: Option<&str>) -> Result<Vec<StoredJob>, QueueError> {
        const WHAT: &str = "fail jobs";
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&ids, Type::INT8_ARRAY), (&reason, Type::TEXT)];
        let rows = self.query(WHAT, PERMANENTLY_FAIL_JOBS, &parameters).await?;
        StoredJob::from_rows(WHAT, &rows)
    }

    /// Changes when and how often jobs are tried, and returns them. Those that a worker holds, and ids that do not exist,
    /// are missing in the answer. Nobody is notified: idle workers find what is due at their next poll.
    pub async fn administer_reschedule(&self, ids: &[i64], change: &Reschedule) -> Result<Vec<StoredJob>, QueueError> {
        const WHAT: &str = "reschedule jobs";
        let Reschedule { run_at, priority, attempts, max_attempts } = change;
        let [priority, attempts, max_attempts] = [priority, attempts, max_attempts].map(|number| number.map(i32::from));
        let rows = self
            .query(
                WHAT,
                RESCHEDULE_JOBS,
                &[
                    (&ids, Type::INT8_ARRAY),
                    (run_at, Type::TIMESTAMPTZ),
                    (&priority, Type::INT4),
                    (&attempts, Type::INT4),
                    (&max_attempts, Type::INT4),
                ],
            )
            .await?;
        StoredJob::from_rows(WHAT, &rows)
    }

    /// Runs jobs again that were tried before, whether they wait for their next attempt or failed for good, and returns them: they
    /// are due at once and count as not tried, so that they have all of their attempts. `last_error` stays. Those that a worker
    /// holds or that were never tried, and ids that do not exist, are missing in the answer. Nobody is notified.
    pub async fn administer_retry(&self, ids: &[i64]) -> Result<Vec<StoredJob>, QueueError> {
        const WHAT: &str = "retry jobs";
        StoredJob::from_rows(WHAT, &self.query(WHAT, RETRY_JOBS, &[(&ids, Type::INT8_ARRAY)]).await?)
    }

    /// Deletes jobs that nobody is to run, and returns them. Those that a worker holds, and ids that do not exist, are missing in
    /// the answer.
    pub async fn administer_remove(&self, ids: &[i64]) -> Result<Vec<StoredJob>, QueueError> {
        const WHAT: &str = "remove jobs";
        // The database keeps no trace of a job that is done, so this is the same to it.
        StoredJob::from_rows(WHAT, &self.query(WHAT, COMPLETE_JOBS, &[(&ids, Type::INT8_ARRAY)]).await?)
    }

    /// Removes the job under a key and returns it; `None` if there is none. A job that a worker holds goes on, but loses
    /// its key and is not tried again: it is returned as [`JobState::Running`](super::JobState::Running).
    pub async fn remove_job(&self, key: &str) -> Result<Option<StoredJob>, QueueError> {
        const WHAT: &str = "remove a job";
        let rows = self.query(WHAT, REMOVE_JOB, &[(&key, Type::TEXT)]).await?;
        Ok(StoredJob::from_rows(WHAT, &rows)?.pop())
    }

    /// Unlocks the jobs and queues of these owners, and tells what each of them held. Only for owners that do not live any
    /// more: their jobs would run twice.
    pub async fn force_unlock_workers(&self, owners: &[&str]) -> Result<Vec<UnlockedWorker>, QueueError> {
        const WHAT: &str = "unlock jobs";
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let rows = match self.query(WHAT, FORCE_UNLOCK_WORKERS, &[(&owners, Type::TEXT_ARRAY)]).await {
            Err(error) if error.is_refusal() => return self.unlock_around(WHAT, owners).await,
            rows => rows?,
        };
        rows.iter()
            .map(|row| {
                Ok(UnlockedWorker {
                    worker: text(row, 0).map_err(read)?,
                    jobs: row.try_get(1).map_err(read)?,
                    queues: row.try_get(2).map_err(read)?,
                    refused: Vec::new(),
                })
            })
            .collect()
    }

    /// The same part by part, because the database refuses to unlock some of the jobs.
    async fn unlock_around(&self, what: &'static str, owners: &[&str]) -> Result<Vec<UnlockedWorker>, QueueError> {
        let read = |error: tokio_postgres::Error| QueueError::statement(what, &error);
        let mut unlocked: BTreeMap<&str, UnlockedWorker> = BTreeMap::new();
        for owner in owners {
            let rows = self.query(what, UNLOCK_QUEUES, &[(owner, Type::TEXT)]).await?;
            let queues = i64::try_from(rows.len()).unwrap_or(i64::MAX);
            let worker = UnlockedWorker { worker: (*owner).to_owned(), jobs: 0, queues, refused: Vec::new() };
            unlocked.entry(owner).or_insert(worker);
        }
        for worker in unlocked.values_mut() {
            let rows = self.query(what, HELD_JOBS, &[(&worker.worker, Type::TEXT)]).await?;
            let ids: Vec<i64> = rows.iter().map(|row| row.try_get(0).map_err(read)).collect::<Result<_, _>>()?;
            let mut parts = Bisection::new(ids.len(), usize::MAX);
            while let Some(part) = parts.next() {
                let ran = async {
                    let some = &ids[part.clone()];
                    let parameters: [(&(dyn ToSql + Sync), Type); 2] =
                        [(&worker.worker, Type::TEXT), (&some, Type::INT8_ARRAY)];
                    let rows = self.query(what, UNLOCK_JOBS, &parameters).await?;
                    worker.jobs += i64::try_from(rows.len()).unwrap_or(i64::MAX);
                    Ok(())
                };
                parts.ran(part.clone(), ran.await)?;
            }
            let apart = parts.end();
            worker.refused.extend(apart.refused_of(&ids).map(|(id, error)| (id, error.reason())));
        }
        Ok(unlocked.into_values().collect())
    }
}
