//! Deletes what nobody needs any more: jobs that failed for good, and the names of tasks and queues without jobs.

use std::time::Duration;

use tokio_postgres::{
    error::SqlState,
    types::{ToSql, Type},
};

use super::{Bisection, QueueError, Session};

/// $1 ids, null for all. Jobs that were tried as often as they may be.
const DELETE_PERMAFAILED_JOBS: &str = "
with deleted as (
  delete from @schema@._private_jobs
  where attempts = max_attempts
    and locked_at is null
    and ($1::int8[] is null or id = any ($1))
  returning id
)
select count(*) from deleted";

const PERMAFAILED_JOBS: &str =
    "select id from @schema@._private_jobs where attempts = max_attempts and locked_at is null order by id";

/// $1 names to keep, besides those in use.
const GC_TASK_IDENTIFIERS: &str = "
with deleted as (
  delete from @schema@._private_tasks as task
  where not task.identifier = any ($1)
    and not exists (select from @schema@._private_jobs as job where job.task_id = task.id)
  returning task.id
)
select count(*) from deleted";

/// Queues that are not locked, and have no jobs.
const GC_JOB_QUEUES: &str = "
with deleted as (
  delete from @schema@._private_job_queues as queue
  where queue.locked_at is null
    and not exists (select from @schema@._private_jobs as job where job.job_queue_id = queue.id)
  returning queue.id
)
select count(*) from deleted";

/// Whoever adds a job makes sure of the names first and refers to their ids later in the same transaction, without a
/// foreign key to protect them: a name deleted in between would leave a job that no worker ever finds, or one that lost its
/// queue. Making sure of them is an insert, and this lock waits for all who have begun it and keeps others from it.
const LOCK_TASKS: &str = "lock table @schema@._private_tasks in share row exclusive mode";
const LOCK_QUEUES: &str = "lock table @schema@._private_job_queues in share row exclusive mode";

/// While a lock is waited for, nobody else gets past it: no job is added and none with a queue is claimed. So the wait is
/// short, and tried again after others had their turn.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '300ms'";
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(500);

/// One of the things that can be cleaned up, with graphile-worker's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CleanupTask {
    /// `DELETE_PERMAFAILED_JOBS`: jobs that failed for good are deleted.
    DeletePermafailedJobs,
    /// `GC_TASK_IDENTIFIERS`: the names of tasks without jobs are forgotten.
    GcTaskIdentifiers,
    /// `GC_JOB_QUEUES`: queues without jobs, which nobody has locked, are forgotten.
    GcJobQueues,
}

impl CleanupTask {
    /// All of them, in the order in which they are done: a name can only be forgotten after the last job that has it.
    pub const ALL: [Self; 3] = [Self::DeletePermafailedJobs, Self::GcTaskIdentifiers, Self::GcJobQueues];

    /// As graphile-worker calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeletePermafailedJobs => "DELETE_PERMAFAILED_JOBS",
            Self::GcTaskIdentifiers => "GC_TASK_IDENTIFIERS",
            Self::GcJobQueues => "GC_JOB_QUEUES",
        }
    }
}

/// How many rows a clean-up deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanedUp {
    pub task: CleanupTask,
    pub deleted: u64,
    /// Jobs that the database refuses to delete, by a trigger or a constraint, and what it says.
    pub refused: Vec<(i64, String)>,
}

const WHAT: &str = "clean up";

impl Session {
    /// Does these clean-ups, in the order of [`CleanupTask::ALL`] and each once, and tells how much each deleted. The names
    /// of tasks in `keep` are not forgotten.
    ///
    /// A worker that runs knows its tasks by their ids. One of graphile-worker's does not notice that they are forgotten,
    /// and never finds jobs of these tasks again: name the tasks of all running workers in `keep`.
    pub async fn cleanup(&mut self, tasks: &[CleanupTask], keep: &[&str]) -> Result<Vec<CleanedUp>, QueueError> {
        let mut done = Vec::new();
        for task in CleanupTask::ALL.into_iter().filter(|task| tasks.contains(task)) {
            let mut refused = Vec::new();
            let deleted = match task {
                CleanupTask::DeletePermafailedJobs => self.delete_permafailed(&mut refused).await?,
                CleanupTask::GcTaskIdentifiers => {
                    self.delete_locked(LOCK_TASKS, GC_TASK_IDENTIFIERS, &[(&keep, Type::TEXT_ARRAY)]).await?
                }
                CleanupTask::GcJobQueues => self.delete_locked(LOCK_QUEUES, GC_JOB_QUEUES, &[]).await?,
            };
            done.push(CleanedUp { task, deleted: u64::try_from(deleted).unwrap_or_default(), refused });
        }
        Ok(done)
    }

    /// All at once; if that is refused because of some of them, all but those.
    async fn delete_permafailed(&self, refused: &mut Vec<(i64, String)>) -> Result<i64, QueueError> {
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let delete = async |ids: Option<&[i64]>| {
            let rows = self.query(WHAT, DELETE_PERMAFAILED_JOBS, &[(&ids, Type::INT8_ARRAY)]).await?;
            rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0)).map_err(read)
        };
        match delete(None).await {
            Err(error) if error.is_refusal() => {}
            whole => return whole,
        }
        let rows = self.query(WHAT, PERMAFAILED_JOBS, &[]).await?;
        let ids: Vec<i64> = rows.iter().map(|row| row.try_get(0).map_err(read)).collect::<Result<_, _>>()?;
        let mut deleted = 0;
        let mut parts = Bisection::new(ids.len(), usize::MAX);
        while let Some(part) = parts.next() {
            let ran = async {
                deleted += delete(Some(&ids[part.clone()])).await?;
                Ok(())
            };
            parts.ran(part.clone(), ran.await)?;
        }
        let apart = parts.end();
        refused.extend(apart.refused_of(&ids).map(|(id, error)| (id, error.reason())));
        Ok(deleted)
    }

    /// Deletes names while nobody makes sure of them.
    async fn delete_locked(
        &mut self,
        lock: &'static str,
        delete: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<i64, QueueError> {
        let [lock, delete] = [lock, delete].map(|sql| self.database().render(sql));
        let mut tries = 1;
        loop {
            match delete_once(self, &lock, &delete, parameters).await {
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) && tries < LOCK_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                    return Err(QueueError::Statement {
                        what: WHAT,
                        reason:
                            "there was always a transaction that had added jobs and was not over; try again when no \
                                 program adds jobs in a long transaction"
                                .to_owned(),
                        code: error.code().cloned(),
                        lost: false,
                    });
                }
                deleted => return deleted.map_err(|error| QueueError::statement(WHAT, &error)),
            }
        }
    }
}

async fn delete_once(
    session: &mut Session,
    lock: &str,
    delete: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<i64, tokio_postgres::Error> {
    let transaction = session.transaction().await?;
    transaction.batch_execute(LOCK_TIMEOUT).await?;
    transaction.batch_execute(lock).await?;
    let rows = transaction.query_typed(delete, parameters).await?;
    let deleted = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
    transaction.commit().await?;
    Ok(deleted)
}
