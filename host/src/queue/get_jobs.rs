//! Claims jobs: finds them, marks them and their queues with the owner's id, and counts the attempt.

use std::{
    sync::{LazyLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio_postgres::types::{ToSql, Type};

use super::{Job, QueueError, Session};

const WHAT: &str = "claim jobs";

/// The most jobs that one statement claims. The number also stands in the statement, where it tells the planner that few
/// rows are wanted, so that it walks along the indexes instead of sorting all that is waiting.
const MOST: usize = 1000;

/// Which of the jobs that wait are not to be claimed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// Jobs with any of these flags stay.
    pub forbidden_flags: &'a [String],
    /// What the time is; `None`: what the database's clock says. Locks have the database's time in any case, because
    /// other programs judge their age by it.
    pub now: Option<SystemTime>,
}

/// $1 owner, $2 ids of tasks, $3 how many, then what the [`Conditions`] need: see [`form`].
///
/// * `free`: jobs without a queue, which have an index of their own and never look at queues.
/// * `edge`: where the last of them stands, if they are as many as wanted. Jobs in queues matter only up to there, which
///   makes them cost nothing where there are none.
/// * `queued`: the first jobs that stand in available queues. It is the queue's row that is locked, one by one while the
///   index is walked, so that other claimers pass over it, and Postgres looks at its newest version: a queue that was
///   taken after this statement's snapshot is not available any more. Whoever holds that lock is alone with the queue.
/// * `heads`: the first job of each of those queues, locked and looked at again for the same reason. It may be gone by
///   now; then its queue stays unmarked.
///
/// Three things keep the walk over `waiting` a walk along an index that ends where enough is found, also where the planner
/// knows little of the table: it is two walks, because one comparison of (priority, run_at) would not end the scan at the
/// edge; its limits, which are none, are numbers that the planner cannot see, so that it reckons with a part of the rows;
/// and jobs without a queue are left to the join to drop, because a planner that expects few jobs in queues reads all.
const SQL: &str = "
with
  free as materialized (
    select id, priority, run_at
    from (
      select job.id, job.priority, job.run_at
      from @schema@._private_jobs as job
      where job.is_available = true
        and job.job_queue_id is null
        and job.run_at <= @now@
        and job.task_id = any ($2)@allowed@
      order by job.priority, job.run_at
      limit 1000
      for update skip locked
    ) as first
    limit $3
  ),
  edge as materialized (
    select priority, run_at
    from free
    where (select count(*) from free) = $3
    order by priority desc, run_at desc
    limit 1
  ),
  queued as materialized (
    select id, job_queue_id, priority, run_at
    from (
      select waiting.id, waiting.job_queue_id, waiting.priority, waiting.run_at
      from (
        (
          select job.id, job.job_queue_id, job.priority, job.run_at
          from @schema@._private_jobs as job
          where job.is_available = true
            and job.priority < coalesce((select priority::int4 from edge), 32768)
            and job.run_at <= @now@
            and job.task_id = any ($2)@allowed@
            and exists (select from @schema@._private_job_queues)
          order by job.priority, job.run_at
          limit (select 9223372036854775807)
        )
        union all
        (
          select job.id, job.job_queue_id, job.priority, job.run_at
          from @schema@._private_jobs as job
          where job.is_available = true
            and job.priority = (select priority from edge)
            and job.run_at <= (select run_at from edge)
            and job.task_id = any ($2)@allowed@
            and exists (select from @schema@._private_job_queues)
          order by job.priority, job.run_at
          limit (select 9223372036854775807)
        )
      ) as waiting
      join @schema@._private_job_queues as queue on queue.id = waiting.job_queue_id
      where queue.is_available = true
      order by waiting.priority, waiting.run_at
      limit 1000
      for update of queue skip locked
    ) as first
    limit $3
  ),
  heads as materialized (
    select job.id, job.job_queue_id, job.priority, job.run_at
    from @schema@._private_jobs as job
    join (
      select distinct on (job_queue_id) id, job_queue_id
      from queued
      order by job_queue_id, priority, run_at, id
    ) as head on head.id = job.id and head.job_queue_id = job.job_queue_id
    where job.is_available = true
      and job.run_at <= @now@
      and job.task_id = any ($2)@allowed@
    for update of job skip locked
  ),
  chosen as materialized (
    select id, null::int4 as job_queue_id, priority, run_at from free
    union all
    select id, job_queue_id, priority, run_at from heads
    order by priority, run_at, id
    limit $3
  ),
  marked_queue as (
    update @schema@._private_job_queues as queue
    set locked_by = $1, locked_at = now()
    from chosen
    where queue.id = chosen.job_queue_id
    returning queue.id, queue.queue_name
  ),
  marked_job as (
    update @schema@._private_jobs as job
    set attempts = job.attempts + 1, locked_by = $1, locked_at = now()
    from chosen
    left join marked_queue on marked_queue.id = chosen.job_queue_id
    where job.id = chosen.id
    returning
      job.id, job.task_id, job.job_queue_id, marked_queue.queue_name, job.payload::text, job.priority, job.run_at,
      job.attempts, job.max_attempts, job.last_error, job.created_at, job.updated_at, job.key, job.revision,
      job.flags::text
  )
select marked_job.*, (select count(*) from queued) as queued
from (values (1)) as always (one)
left join marked_job on true";

/// The statement for these conditions. A condition that is not needed is not in it, because some of the walks above read
/// nothing but an index as long as none asks for a column beside it.
fn form(conditions: Conditions<'_>) -> &'static str {
    static FORMS: LazyLock<[String; 4]> = LazyLock::new(|| {
        let allowed = "\n        and (job.flags ?| $4) is not true";
        [("", "now()"), (allowed, "now()"), ("", "$4"), (allowed, "$5")]
            .map(|(allowed, now)| SQL.replace("@allowed@", allowed).replace("@now@", now))
    });
    &FORMS[usize::from(!conditions.forbidden_flags.is_empty()) + 2 * usize::from(conditions.now.is_some())]
}

/// What one run of the statement gave.
struct Claimed {
    jobs: Vec<Job>,
    /// How many jobs in queues it looked at.
    queued: usize,
}

impl Session {
    /// Claims up to `limit` jobs of the given tasks for `owner`, the most urgent first; at most 1,000 at a time. A queue
    /// gives at most one job, and none while another one of it is being worked by anyone.
    ///
    /// Fewer than `limit` means that there are no more at the moment, with one exception: where a long backlog of busy
    /// queues stands at the front, what is behind it is looked for less often.
    pub async fn get_jobs(
        &self,
        owner: &str,
        task_ids: &[i32],
        limit: usize,
        conditions: Conditions<'_>,
    ) -> Result<Vec<Job>, QueueError> {
        let limit = limit.min(MOST);
        if limit == 0 || task_ids.is_empty() {
            return Ok(Vec::new());
        }
        let Claimed { mut jobs, queued } = self.claim(owner, task_ids, limit, conditions).await?;
        if jobs.len() < limit && queued > from_queues(&jobs) && self.worth_another_look() {
            // Some of the rows looked at were of one queue, or were lost to another claimer, and stand before jobs of
            // other queues. The queues claimed just now are not in the way any more.
            let asked = Instant::now();
            match self.claim(owner, task_ids, limit - jobs.len(), conditions).await {
                Ok(more) => {
                    if more.jobs.is_empty() {
                        self.rest_after(asked.elapsed());
                    }
                    jobs.extend(more.jobs);
                }
                // What is claimed is claimed: it has to reach the caller. The next call meets the error again.
                Err(error) if jobs.is_empty() => return Err(error),
                Err(_) => {}
            }
        }
        jobs.sort_by_key(|job| (job.priority, job.run_at, job.id));
        Ok(jobs)
    }

    async fn claim(
        &self,
        owner: &str,
        task_ids: &[i32],
        limit: usize,
        conditions: Conditions<'_>,
    ) -> Result<Claimed, QueueError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(5);
        parameters.extend([
            (&owner as &(dyn ToSql + Sync), Type::TEXT),
            (&task_ids, Type::INT4_ARRAY),
            (&limit, Type::INT8),
        ]);
        if !conditions.forbidden_flags.is_empty() {
            parameters.push((&conditions.forbidden_flags, Type::TEXT_ARRAY));
        }
        if let Some(now) = &conditions.now {
            parameters.push((now, Type::TIMESTAMPTZ));
        }
        let rows = self.query(WHAT, form(conditions), &parameters).await?;
        let mut claimed = Claimed { jobs: Vec::with_capacity(rows.len()), queued: 0 };
        for row in rows {
            let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
            claimed.queued = usize::try_from(row.try_get::<_, i64>(15).map_err(read)?).unwrap_or_default();
            // Without any job there is one row of nulls, for the count.
            if row.try_get::<_, Option<i64>>(0).map_err(read)?.is_some() {
                claimed.jobs.push(Job::from_row(&row).map_err(read)?);
            }
        }
        Ok(claimed)
    }

    fn worth_another_look(&self) -> bool {
        let until = self.database().second_look().lock().unwrap_or_else(PoisonError::into_inner);
        until.is_none_or(|until| until <= Instant::now())
    }

    /// Looking behind a backlog of one queue reads all of it. When that was in vain, it may take a tenth of the time at
    /// most, and is not put off by more than a second.
    fn rest_after(&self, took: Duration) {
        let rest = (took * 9).min(Duration::from_secs(1));
        *self.database().second_look().lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + rest);
    }
}

fn from_queues(jobs: &[Job]) -> usize {
    jobs.iter().filter(|job| job.job_queue_id.is_some()).count()
}
