//! Adds one job, by the function that every other program calls.

use tokio_postgres::types::{ToSql, Type};

use super::{AddedJob, Job, NewJob, QueueError, add_statements::Statements, text::text};

const WHAT: &str = "add a job";

/// How often a keyed job is added again that was lost to a race: each loss means that the job under the key was claimed or
/// finished in that moment, so the next try meets another state.
pub(super) const TRIES: usize = 10;

/// $1 identifier, $2 payload, $3 queue, $4 time, $5 attempts, $6 key, $7 priority, $8 flags, $9 mode. A queue or a task that
/// came into being by this call is not seen by the joins, and it is the one that was asked for.
const SQL: &str = "
select
  job.id, job.task_id, job.job_queue_id,
  case when job.job_queue_id is not null then coalesce(queue.queue_name, $3) end,
  job.payload::text, job.priority, job.run_at, job.attempts, job.max_attempts, job.last_error, job.created_at,
  job.updated_at, job.key, job.revision, job.flags::text,
  coalesce(task.identifier, $1)
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
left join @schema@._private_job_queues as queue on queue.id = job.job_queue_id
left join @schema@._private_tasks as task on task.id = job.task_id";

pub(super) async fn run(to: &impl Statements, new: &NewJob) -> Result<AddedJob, QueueError> {
    new.check().map_err(|reason| QueueError::BadJob { reason })?;
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
        let rows = to.rows(WHAT, SQL, &parameters).await?;
        let Some(added) = rows.first() else { break };
        // A row of nulls says that a worker took the job under the key while it was about to be changed.
        if added.try_get::<_, Option<i64>>(0).map_err(read)?.is_some() {
            let job = Job::from_row(added).map_err(read)?;
            return Ok(AddedJob { task: text(added, 15).map_err(read)?, job });
        }
    }
    Err(lost_to_a_race(new))
}

pub(super) fn lost_to_a_race(new: &NewJob) -> QueueError {
    QueueError::BadJob {
        reason: format!(
            "the job under the key {:?} was taken by a worker each time that it was about to be changed ({TRIES} times); \
             add it again",
            new.job_key.as_deref().unwrap_or_default()
        ),
    }
}
