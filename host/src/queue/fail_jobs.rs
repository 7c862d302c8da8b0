//! Stores the failure of jobs: the message, and when they are tried again.

use std::{borrow::Cow, sync::LazyLock, time::SystemTime};

use tokio_postgres::types::{ToSql, Type};

use super::{
    ClaimedJob, CrashRecord, QueueError, Session, beyond_encoding, claimed::Claims, crash_record::WITH_RECORD,
};

const WHAT: &str = "store the failure of jobs";

/// The longest message that is stored, in bytes. Longer ones keep their beginning.
pub const LONGEST_MESSAGE: usize = 64 * 1024;

/// A job that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedJob {
    pub claim: ClaimedJob,
    /// What becomes `last_error`. NUL bytes, which Postgres cannot store, are written as `\0`; what is longer than
    /// [`LONGEST_MESSAGE`] is cut.
    pub message: String,
    /// The job is not tried again, whatever attempts it has left.
    pub permanent: bool,
    /// How many attempts the task allows, where that is fewer than the job has: they become the job's own.
    pub max_attempts: Option<i16>,
    /// What the payload becomes, as JSON text; `None`: it stays.
    pub payload: Option<String>,
    /// It failed because a process crashed.
    pub crashes: Option<CrashRecord>,
}

/// What became of a failed job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredFailure {
    pub id: i64,
    /// When it is tried again; `None`: never.
    pub retry_at: Option<SystemTime>,
}

/// The wait after a failed attempt: e to the power of the attempts, up to the tenth, so 2.7 s, 7.4 s, 20 s … 6 h 7 min.
macro_rules! retry_delay {
    ($attempts:literal) => {
        concat!("interval '1 second' * exp(least(10, ", $attempts, "))")
    };
}
pub(super) use retry_delay;

/// What a failure changes in the row `job`, in both lanes. The wait counts from now or from when the job was due, whichever is
/// later. A job that is not tried again gets it as well, as it does from graphile-worker: `run_at` and `attempts` tell when it failed.
const FAILURE: &str = concat!(
    "
  last_error = failure.message,
  payload = coalesce(failure.payload::json, job.payload),
  flags = @flags@,
  attempts = @attempts@,
  max_attempts = greatest(least(job.max_attempts, failure.max_attempts), @attempt@),
  run_at = greatest(@now@, job.run_at) + ",
    retry_delay!("@attempts@")
);
const ATTEMPTS: &str = "case
    when failure.permanent then greatest(least(job.max_attempts, failure.max_attempts), @attempt@)
    else @attempt@
  end";

/// Puts [`FAILURE`] into a statement for `@failure@`, and for `failure` the name of the row with the failure. `attempt` counts the
/// attempt that failed.
pub(super) fn with_failure(text: &str, failure: &str, attempt: &str, now: &str) -> String {
    let changes = FAILURE
        .replace("@flags@", &WITH_RECORD.replace("@record@", "failure.crashes"))
        .replace("@attempts@", ATTEMPTS)
        .replace("@attempt@", attempt)
        .replace("@now@", now)
        .replace("failure.", &format!("{failure}."));
    text.replace("@failure@", changes.trim_start())
}

/// $1 owner, $2 to $5 the claims, $6 messages, $7 whether for good, $8 the task's limit of attempts, null where it is not lower,
/// $9 payloads, null where it stays, $10 records of crashes, null where it was none.
const FAILED: &str = "
with
  failed as (
    update @schema@._private_jobs as job
    set @failure@, locked_by = null, locked_at = null
    from unnest($2, $3, $4, $5, $6, $7, $8, $9, $10)
      as claimed (id, attempt, keyed, locked_at, message, permanent, max_attempts, payload, crashes)
    where @still_claimed@
    returning job.id, job.job_queue_id, job.is_available, job.run_at
  )";

/// $1 owner. The queues of those jobs.
const FREED: &str = ",
  freed as (
    update @schema@._private_job_queues as queue
    set locked_by = null, locked_at = null
    from failed
    where queue.id = failed.job_queue_id
      and queue.locked_by = $1
  )";

static WITHOUT_QUEUES: LazyLock<String> = LazyLock::new(|| statement(""));
static WITH_QUEUES: LazyLock<String> = LazyLock::new(|| statement(FREED));

fn statement(freed: &str) -> String {
    let text = format!("{FAILED}{freed}\nselect id, case when is_available then run_at end from failed");
    with_failure(&text, "claimed", "job.attempts", "now()")
}

impl Session {
    /// Stores the failure of those of the jobs that `owner` still holds by these claims, and frees their queues; returns what became of
    /// them. Where a job is missing, its lock was taken away.
    pub async fn fail_jobs(&self, owner: &str, jobs: &[FailedJob]) -> Result<Vec<StoredFailure>, QueueError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        match self.store_failures(owner, &Failures::of(jobs, false)).await {
            Err(error) if beyond_encoding(&error) => self.store_failures(owner, &Failures::of(jobs, true)).await,
            result => result,
        }
    }

    async fn store_failures(&self, owner: &str, failures: &Failures<'_>) -> Result<Vec<StoredFailure>, QueueError> {
        let sql: &'static str = if failures.claims.with_queues { &WITH_QUEUES } else { &WITHOUT_QUEUES };
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&owner, Type::TEXT)];
        parameters.extend(failures.claims.parameters());
        parameters.extend(failures.what_to_store());
        let rows = self.query(WHAT, sql, &parameters).await?;
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        rows.iter()
            .map(|row| Ok(StoredFailure { id: row.try_get(0).map_err(read)?, retry_at: row.try_get(1).map_err(read)? }))
            .collect()
    }
}

/// Failures column by column, as statements take them.
#[derive(Debug)]
pub(super) struct Failures<'a> {
    claims: Claims,
    messages: Vec<Cow<'a, str>>,
    permanent: Vec<bool>,
    max_attempts: Vec<Option<i16>>,
    payloads: Vec<Option<&'a str>>,
    crashes: Vec<Option<String>>,
}

impl<'a> Failures<'a> {
    /// With `in_ascii`, other characters are written as escapes: see [`beyond_encoding`].
    pub(super) fn of(jobs: &'a [FailedJob], in_ascii: bool) -> Self {
        let message = |job: &'a FailedJob| match in_ascii {
            false => storable(&job.message),
            true => Cow::Owned(storable(&job.message.escape_default().to_string()).into_owned()),
        };
        Self {
            claims: Claims::of(jobs.iter().map(|job| &job.claim)),
            messages: jobs.iter().map(message).collect(),
            permanent: jobs.iter().map(|job| job.permanent).collect(),
            max_attempts: jobs.iter().map(|job| job.max_attempts).collect(),
            payloads: jobs.iter().map(|job| job.payload.as_deref()).collect(),
            crashes: jobs.iter().map(|job| job.crashes.map(CrashRecord::as_json)).collect(),
        }
    }

    /// The ids, for a transaction that holds the rows anyway.
    pub(super) fn ids(&self) -> (&(dyn ToSql + Sync), Type) {
        let [ids, ..] = self.claims.parameters();
        ids
    }

    /// Messages, whether for good, the tasks' limits of attempts, payloads, and records of crashes.
    pub(super) fn what_to_store(&self) -> [(&(dyn ToSql + Sync), Type); 5] {
        [
            (&self.messages, Type::TEXT_ARRAY),
            (&self.permanent, Type::BOOL_ARRAY),
            (&self.max_attempts, Type::INT2_ARRAY),
            (&self.payloads, Type::TEXT_ARRAY),
            (&self.crashes, Type::TEXT_ARRAY),
        ]
    }
}

/// The message as Postgres can store it.
fn storable(message: &str) -> Cow<'_, str> {
    if message.len() <= LONGEST_MESSAGE && !message.contains('\0') {
        return Cow::Borrowed(message);
    }
    let end = (0..=LONGEST_MESSAGE.min(message.len())).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
    let kept = &message[..end];
    let mut stored = kept.replace('\0', "\\0");
    if kept.len() < message.len() {
        // In ASCII, like the escapes before it where the encoding has nothing else.
        stored.push_str(&format!(" ... ({} more bytes)", message.len() - kept.len()));
    }
    Cow::Owned(stored)
}
