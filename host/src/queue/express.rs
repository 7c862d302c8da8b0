//! The express lane: jobs are locked, worked and deleted in one transaction, so that each row is written once.
//!
//! ```text
//! begin · lock_jobs ─── the jobs run ─── settle: delete what is done, store what failed, mark what still runs · commit
//! ```
//!
//! Until the commit, others see the jobs as they were before, and pass over them because their rows are locked. Whatever ends
//! the connection before that leaves them as they were: available.

use std::{
    collections::HashMap,
    sync::LazyLock,
    time::{Instant, SystemTime},
};

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{
    Conditions, FailedJob, Job, QueueError, Session, TaskIds,
    claim::{
        Answer, FACTS, FORMS as ALL_FORMS, FOUND_PRIORITIES, FREE_SCAN, PROBE, RANGES, Ranges, form, forms, lock,
        with_facts,
    },
    fail_jobs::{Failures, with_failure},
};

const LOCK: &str = "lock jobs";
pub(super) const SETTLE: &str = "store the results of jobs";

/// $1 ids of tasks, $2 how many, $3 to $6 the ranges of the scan, $7 names of the tasks, then the [`Conditions`]. Returns jobs and
/// facts, as the statement of the marked lane does.
const SELECT: &str = "
with
  @known_part@,
  @ranges_part@
@answer@";

const SELECTED: &str = "(
  select *
  from (@free_part@
  ) as first
  limit $2
)";

/// The fast path: $1 ids of tasks, $2 how many, $3 names of the tasks, then the [`Conditions`]. Returns jobs only.
const SELECT_PROBE: &str = "
with
  @known_part@
select *
from (@probe@
) as job
limit $2";

/// As [`Job::from_row`] reads them.
const COLUMNS: &str = "
            job.id, job.task_id, null::int4 as job_queue_id, null::text as queue_name, job.payload::text as payload,
            job.priority, job.run_at, (job.attempts + 1)::int2 as attempts, job.max_attempts, job.last_error,
            job.created_at, job.updated_at, job.key, job.revision, job.flags::text as flags";

/// The statement for these conditions.
fn select(conditions: Conditions<'_>) -> &'static str {
    static FORMS: LazyLock<[String; ALL_FORMS]> = LazyLock::new(|| {
        let facts = FACTS.iter().chain([&FOUND_PRIORITIES]);
        let text = SELECT
            .replace("@answer@", &with_facts(SELECTED, Job::COLUMNS, facts))
            .replace("@ranges_part@", RANGES.trim_start())
            .replace("@free_part@", FREE_SCAN)
            .replace("@ranges@", "$3, $4, $5, $6) as scan_range (below, priority, free_at, free_id")
            .replace("@columns@", COLUMNS.trim_start())
            .replace("@took@", "clock_timestamp() - statement_timestamp()");
        forms(&text, 1, 7)
    });
    &FORMS[form(conditions)]
}

fn probe(conditions: Conditions<'_>) -> &'static str {
    static FORMS: LazyLock<[String; ALL_FORMS]> = LazyLock::new(|| {
        let text = SELECT_PROBE.replace("@probe@", PROBE).replace("@columns@", COLUMNS.trim_start());
        forms(&text, 1, 3)
    });
    &FORMS[form(conditions)]
}

/// $1 ids.
pub(super) const DELETE: &str = "delete from @schema@._private_jobs where id = any ($1)";

/// $1 owner, $2 ids: claims them as `get_jobs` does.
pub(super) const MARK: &str = "
update @schema@._private_jobs as job
set attempts = job.attempts + 1, locked_by = $1, locked_at = now()
where job.id = any ($2)
returning job.id, job.locked_at";

/// As `fail_jobs` does with a job that was marked. $1 ids, $2 messages, $3 whether for good, $4 the tasks' limits of attempts,
/// $5 payloads, both null where the job's own stays, $6 records of crashes, null where it was none.
pub(super) static FAIL: LazyLock<String> =
    LazyLock::new(|| with_failure(FAIL_TEXT, "failure", "job.attempts + 1", "statement_timestamp()"));

const FAIL_TEXT: &str = "
update @schema@._private_jobs as job
set @failure@
from unnest($1, $2, $3, $4, $5, $6) as failure (id, message, permanent, max_attempts, payload, crashes)
where job.id = failure.id";

/// $1 owner, $2 ids, $3 the attempts under way, $4 when the jobs were added: after a failover to a server that had not heard of
/// everything, an id may belong to another job. What was committed although nobody heard of it is gone, has failed, or is marked
/// already; what somebody else has taken differs when that transaction has ended, which is waited for.
const LOCK_AGAIN: &str = "
select job.id, job.locked_at
from @schema@._private_jobs as job
join unnest($2, $3, $4) as mine (id, attempts, created_at) on mine.id = job.id and mine.created_at = job.created_at
where (job.is_available = true and job.attempts + 1 = mine.attempts)
  or (job.locked_by = $1 and job.attempts = mine.attempts)
for update of job";

/// What becomes of the jobs of one transaction. Those that are in none of these stay as they were.
#[derive(Debug, Default)]
pub struct Settlement {
    /// Ids of jobs that are done.
    pub done: Vec<i64>,
    /// Jobs that failed.
    pub failed: Vec<FailedJob>,
    /// Ids of jobs that still run, or are to be run by the marked lane.
    pub marked: Vec<i64>,
    /// Write the messages in ASCII, because the database has no place for some character in them.
    pub in_ascii: bool,
}

/// The jobs of a transaction whose connection was lost, as far as they could be locked once more.
#[derive(Debug, Default)]
pub struct LockedAgain {
    /// As they were before the transaction.
    pub available: Vec<i64>,
    /// Marked by that transaction, which was committed after all, and when they were.
    pub marked: HashMap<i64, SystemTime>,
}

impl Session {
    /// Prepares what ends the transactions, so that [`Session::settle`] can send it in one go, and what begins most of them.
    /// Without prepared statements there is nothing to prepare.
    pub async fn prepare_express(&self) -> Result<(), QueueError> {
        let ids = Type::INT8_ARRAY;
        let marks = [Type::TEXT, ids.clone()];
        let texts = Type::TEXT_ARRAY;
        let failures = [ids.clone(), texts.clone(), Type::BOOL_ARRAY, Type::INT2_ARRAY, texts.clone(), texts];
        let probe_kinds = [Type::INT4_ARRAY, Type::INT8, Type::TEXT_ARRAY];
        let [ids_of_tasks, limit, names] = probe_kinds.clone();
        let selects: Vec<Type> = [ids_of_tasks, limit].into_iter().chain(Ranges::KINDS).chain([names]).collect();
        let (lock, lock_probe, delete, mark, fail) = tokio::join!(
            self.prepare_ahead(LOCK, select(Conditions::default()), &selects),
            self.prepare_ahead(LOCK, probe(Conditions::default()), &probe_kinds),
            self.prepare_ahead(SETTLE, DELETE, std::slice::from_ref(&ids)),
            self.prepare_ahead(SETTLE, MARK, &marks),
            self.prepare_ahead(SETTLE, &FAIL, &failures),
        );
        lock.and(lock_probe).and(delete).and(mark).and(fail)
    }

    /// Begins a transaction and locks up to `limit` jobs without a queue of the given tasks in it, the most urgent first; at
    /// most 1,000. Their attempts count the one that is about to begin. Both statements are sent at the first poll.
    ///
    /// On an error, and when this is dropped half-way, the session has to be dropped as well.
    pub async fn lock_jobs(
        &self,
        tasks: &TaskIds,
        limit: usize,
        conditions: Conditions<'_>,
    ) -> Result<Vec<Job>, QueueError> {
        let wanted = i64::try_from(limit).unwrap_or(i64::MAX);
        let state = self.database().memory().of(tasks.ids(), conditions);
        let sent = Instant::now();
        let [ids, names] = tasks.parameters();
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(9);
        parameters.extend([ids, (&wanted, Type::INT8)]);
        if lock(&state).fast_path.is_open() {
            parameters.push(names);
            parameters.extend(conditions.parameters());
            let rows = self.begin_with(probe(conditions), &parameters).await;
            let rows = rows.inspect_err(|error| lock(&state).failed(error, Instant::now()))?;
            lock(&state).fast_path.probed(rows.len() < limit, sent.elapsed());
            let jobs = rows.iter().map(Job::from_row).collect::<Result<_, _>>();
            return jobs.map_err(|error| QueueError::statement(LOCK, &error));
        }
        let (started, ranges) = lock(&state).begin_free(sent);
        parameters.extend(ranges.free_parameters());
        parameters.push(names);
        parameters.extend(conditions.parameters());
        let rows = self.begin_with(select(conditions), &parameters).await;
        let answer = rows.and_then(|rows| Answer::read(LOCK, &rows, sent.elapsed()));
        let answer = answer.inspect_err(|error| lock(&state).failed(error, Instant::now()))?;
        self.learn(&answer, tasks).await;
        if tasks.are_outdated() {
            return Ok(answer.jobs);
        }
        let now = Instant::now();
        lock(&state).ended_free(started, &answer, limit, now, now - sent);
        Ok(answer.jobs)
    }

    async fn begin_with(
        &self,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, QueueError> {
        let begin = self.begin_read_committed();
        let (transaction, rows) =
            tokio::join!(biased; self.command(LOCK, begin), self.query_as_part(LOCK, sql, parameters));
        transaction?;
        rows
    }

    /// Stores what became of the jobs, and commits. Tells when those are marked that are marked now. All statements are sent at
    /// the first poll.
    ///
    /// On an error it is not known whether that was committed: the session has to be dropped, and [`Session::lock_again`]
    /// tells on another one.
    pub async fn settle(&self, owner: &str, settlement: &Settlement) -> Result<HashMap<i64, SystemTime>, QueueError> {
        let Settlement { done, failed, marked, in_ascii } = settlement;
        let failures = Failures::of(failed, *in_ascii);
        let deleting: [(&(dyn ToSql + Sync), Type); 1] = [(done, Type::INT8_ARRAY)];
        let [messages, permanent, max_attempts, payloads, crashes] = failures.what_to_store();
        let failing = [failures.ids(), messages, permanent, max_attempts, payloads, crashes];
        let marking: [(&(dyn ToSql + Sync), Type); 2] = [(&owner, Type::TEXT), (marked, Type::INT8_ARRAY)];
        let (deleted, failed, marked, committed) = tokio::join!(
            biased;
            self.unless(done.is_empty(), DELETE, &deleting),
            self.unless(failed.is_empty(), &FAIL, &failing),
            self.unless(marked.is_empty(), MARK, &marking),
            self.command(SETTLE, "commit"),
        );
        let rows = deleted.and(failed).and(marked);
        committed?;
        let times = rows?.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, _>>();
        times.map_err(|error| QueueError::statement(SETTLE, &error))
    }

    /// Begins a transaction and locks those of the jobs once more that are still as [`Session::lock_jobs`] left them, or
    /// were marked by the transaction that followed. `attempts` are those under way, and `added_at` the jobs' `created_at`.
    pub async fn lock_again(
        &self,
        owner: &str,
        ids: &[i64],
        attempts: &[i16],
        added_at: &[SystemTime],
    ) -> Result<LockedAgain, QueueError> {
        let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
            (&owner, Type::TEXT),
            (&ids, Type::INT8_ARRAY),
            (&attempts, Type::INT2_ARRAY),
            (&added_at, Type::TIMESTAMPTZ_ARRAY),
        ];
        self.command(LOCK, self.begin_read_committed()).await?;
        self.command(LOCK, "set local lock_timeout = '1s'").await?;
        let rows = self.query_as_part(LOCK, LOCK_AGAIN, &parameters).await?;
        let mut again = LockedAgain::default();
        for row in rows {
            let read = |error: tokio_postgres::Error| QueueError::statement(LOCK, &error);
            let id = row.try_get(0).map_err(read)?;
            match row.try_get(1).map_err(read)? {
                Some(marked) => drop(again.marked.insert(id, marked)),
                None => again.available.push(id),
            }
        }
        Ok(again)
    }

    async fn unless(
        &self,
        nothing_to_do: bool,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, QueueError> {
        if nothing_to_do { Ok(Vec::new()) } else { self.query_as_part(SETTLE, sql, parameters).await }
    }
}
