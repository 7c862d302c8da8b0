//! The statement that claims jobs, and the part of it that the express lane has in common with it.

use std::sync::LazyLock;

use crate::queue::Conditions;

/// What a row of the answer is, in its last column. All but jobs have nulls in the columns that are not named here.
pub(super) const JOB: i16 = 0;
/// `job_queue_id`, `priority`, `run_at`: the first job of a queue that was passed.
pub(super) const PASSED: i16 = 1;
/// `job_queue_id`: of the queues in question, one that is free and has nothing near, or that does not exist.
pub(super) const GONE: i16 = 2;
/// `priority`: there is one that was not among the steps.
pub(super) const FOUND: i16 = 3;
/// `id`: the microseconds that the walk over jobs without a queue took; `run_at`: the time by which jobs were due.
pub(super) const FREE_WALK: i16 = 4;
/// `id`: the microseconds that the walk over jobs in queues took; `task_id`: how many it saw; `priority`, `run_at`: the last
/// of them.
pub(super) const QUEUED_WALK: i16 = 5;

/// A job whose queue is not asked about is due, of one of the tasks, and has no forbidden flag.
const MAY_RUN: &str = "job.run_at <= @now@ and job.task_id = any (@tasks@)@allowed@";

/// The steps in the order of priority. `found` is the first priority in the gap before the step, if there is any.
///
/// Jobs in a gap are walked from there, without a place and all priorities in one go; then the priorities are known.
pub(in crate::queue) const STEPS: &str = "
  step as materialized (
    select step.*, (
      select job.priority
      from @schema@._private_jobs as job
      where job.is_available = true and job.priority > step.below and job.priority < step.priority
      order by job.priority
      limit 1
    ) as found
    from unnest(@steps@)
  )";

/// The walk over jobs without a queue, step by step: first the gap, then what is left of a crowd, then all from the place on.
///
/// * A place is never so late that a transaction of a quarter of a second could have added a job behind it: `run_at` is the
///   time when the transaction began.
/// * A crowd are the many jobs that were added at once and are due at the same moment. No place in the index is among them, so
///   they are walked by their ids, along the primary key: the conditions are written so that no other index serves them.
/// * The limits of 1,000 tell the planner that few rows are wanted, so that it walks along the indexes, instead of sorting all
///   that is waiting; the one outside ends the walk.
pub(in crate::queue) const FREE: &str = "
      select near.*
      from step
      cross join lateral (
        select * from (
          select @columns@
          from @schema@._private_jobs as job
          where job.is_available = true
            and job.job_queue_id is null
            and job.priority >= step.found
            and job.priority < step.priority
            and @may_run@
          order by job.priority, job.run_at
          limit 1000
          for update skip locked
        ) as gap
        union all
        select * from (
          select @columns@
          from @schema@._private_jobs as job
          where job.id > step.free_id
            and job.id <= step.free_id + 10000
            and coalesce(job.is_available, false)
            and job.job_queue_id is null
            and job.priority + 0 = step.priority
            and job.run_at + interval '0' = step.free_at
            and @may_run@
          order by job.id
          limit 1000
          for update skip locked
        ) as crowd
        union all
        select * from (
          select @columns@
          from @schema@._private_jobs as job
          where job.is_available = true
            and job.job_queue_id is null
            and job.priority = step.priority
            and job.run_at >= case
              when step.free_at is null then '-infinity'
              else least(step.free_at, @now@ - interval '250 milliseconds')
            end
            and (step.free_id is null or job.run_at <> step.free_at
              or job.id <= step.free_id or job.id > step.free_id + 10000)
            and @may_run@
          order by job.priority, job.run_at
          limit 1000
          for update skip locked
        ) as all_others
      ) as near
      limit 1000";

/// $1 owner, $2 ids of tasks, $3 how many, $4 to $8 the steps, $9 how many jobs in queues to look at, $10 to $12 queues that
/// wait behind, then what the [`Conditions`] need: see [`claim_statement`].
///
/// * `free`: jobs without a queue, which have an index of their own and never look at queues.
/// * `edge`: where the last of them stands, if they are as many as wanted. Jobs in queues matter only up to there.
/// * `walked`: jobs in queues, whether these are free or not. The index knows nothing of jobs without a queue, so that these
///   are dropped outside of the walk: a planner that expects few jobs in queues would read and sort all of them.
/// * `ready`, `together`, `alone`: the next job of queues that wait behind the walk and are free by now. One walk is made for
///   all of them if they are many, and a short one for each that it has not met.
/// * `turn`: the queues whose first job stands in front. It is the queue's row that is locked, and Postgres looks at its newest
///   version: a queue that was taken after this statement's snapshot is not available any more. Whoever holds that lock is
///   alone with the queue.
/// * `heads`: the first job of each of those queues, locked and looked at again for the same reason. It may be gone by
///   now; then its queue stays unmarked.
const CLAIM: &str = "
with
  @step_part@,
  free as materialized (
    select id, priority, run_at
    from (@free_part@
    ) as first
    limit $3
  ),
  free_walk as materialized (
    select count(*) as jobs, clock_timestamp() - statement_timestamp() as took from free
  ),
  edge as materialized (
    select priority, run_at
    from free
    where (select jobs from free_walk) = $3
    order by priority desc, run_at desc
    limit 1
  ),
  walked as materialized (
    select id, job_queue_id, priority, run_at
    from (
      select near.*
      from step
      cross join lateral (
        select * from (
          select job.id, job.job_queue_id, job.priority, job.run_at
          from @schema@._private_jobs as job
          where job.is_available = true
            and job.priority >= step.found
            and job.priority < step.priority
            and step.found <= coalesce((select priority from edge), 32767)
            and (job.priority, job.run_at) <= (
              coalesce((select priority from edge), 32767), coalesce((select run_at from edge), 'infinity')
            )
            and @may_run@
          order by job.priority, job.run_at
          limit (select 9223372036854775807)
        ) as gap
        union all
        select * from (
          select job.id, job.job_queue_id, job.priority, job.run_at
          from @schema@._private_jobs as job
          where job.is_available = true
            and job.priority = step.priority
            and job.run_at >= case
              when step.queued_at is null then '-infinity'
              else least(step.queued_at, @now@ - interval '250 milliseconds')
            end
            and job.run_at <= case
              when step.priority > (select priority from edge) then '-infinity'
              when step.priority = (select priority from edge) then (select run_at from edge)
              else @now@
            end
            and @may_run@
          order by job.priority, job.run_at
          limit (select 9223372036854775807)
        ) as all_others
      ) as near
      where near.job_queue_id is not null
        and exists (select from @schema@._private_job_queues)
    ) as first
    limit $9
  ),
  queued_walk as materialized (
    select count(*) as jobs, clock_timestamp() - statement_timestamp() as took from walked
  ),
  ready as materialized (
    select waiting.queue_id, waiting.priority, waiting.run_at, queue.id is null as missing
    from unnest($10, $11, $12) as waiting (queue_id, priority, run_at)
    left join @schema@._private_job_queues as queue on queue.id = waiting.queue_id
    where queue.is_available is distinct from false
  ),
  together as materialized (
    select near.id, near.job_queue_id, near.priority, near.run_at
    from (
      select priority, run_at
      from ready
      where (select count(*) from ready) > 4 and not missing
      order by priority, run_at
      limit 1
    ) as place
    cross join lateral (
      select job.id, job.job_queue_id, job.priority, job.run_at, (job.task_id = any (@tasks@)@allowed@) as wanted
      from @schema@._private_jobs as job
      where job.is_available = true
        and job.priority = place.priority
        and job.run_at >= place.run_at
        and job.run_at <= @now@
      order by job.priority, job.run_at
      limit 1000
    ) as near
    join ready on ready.queue_id = near.job_queue_id
    where near.wanted
  ),
  alone as materialized (
    select first.id, ready.queue_id as job_queue_id, first.priority, first.run_at
    from ready
    left join lateral (
      select near.id, near.priority, near.run_at
      from (
        select job.id, job.job_queue_id, job.priority, job.run_at, (job.task_id = any (@tasks@)@allowed@) as wanted
        from @schema@._private_jobs as job
        where job.is_available = true
          and job.priority = ready.priority
          and job.run_at >= ready.run_at
          and job.run_at <= @now@
        order by job.priority, job.run_at
        limit 200
      ) as near
      where near.job_queue_id = ready.queue_id and near.wanted
      limit 1
    ) as first on not ready.missing
    where not exists (select from together where together.job_queue_id = ready.queue_id)
  ),
  head as materialized (
    select distinct on (job_queue_id) id, job_queue_id, priority, run_at
    from (
      select id, job_queue_id, priority, run_at from walked where (select jobs from queued_walk) > 0
      union all
      select id, job_queue_id, priority, run_at from together
      union all
      select id, job_queue_id, priority, run_at from alone where id is not null
    ) as candidate
    order by job_queue_id, priority, run_at, id
  ),
  turn as materialized (
    select head.id, head.job_queue_id
    from head
    join @schema@._private_job_queues as queue on queue.id = head.job_queue_id
    where queue.is_available = true
    order by head.priority, head.run_at, head.id
    limit $3
    for update of queue skip locked
  ),
  heads as materialized (
    select job.id, job.job_queue_id, job.priority, job.run_at
    from turn
    join @schema@._private_jobs as job on job.id = turn.id and job.job_queue_id = turn.job_queue_id
    where job.is_available = true
      and @may_run@
    for update of job skip locked
  ),
  chosen as materialized (
    select id, null::int4 as job_queue_id, priority, run_at from free where (select jobs from free_walk) > 0
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
select marked_job.*, 0::int2 from marked_job
union all
select
  null, null, job_queue_id, null, null, priority, run_at, null, null, null, null, null, null, null, null, 1::int2
from (
  select distinct on (job_queue_id) job_queue_id, priority, run_at
  from walked
  where not exists (select from chosen where chosen.id = walked.id)
  order by job_queue_id, priority, run_at
) as passed
union all
select null, null, job_queue_id, null, null, null, null, null, null, null, null, null, null, null, null, 2::int2
from alone
where id is null
union all
select null, null, null, null, null, found, null, null, null, null, null, null, null, null, null, 3::int2
from step
where found is not null
union all
select
  (extract(epoch from took) * 1000000)::int8, null, null, null, null, null, @now@, null, null, null, null, null, null,
  null, null, 4::int2
from free_walk
union all
select
  (extract(epoch from queued_walk.took - free_walk.took) * 1000000)::int8, queued_walk.jobs::int4, null, null, null,
  last.priority, last.run_at, null, null, null, null, null, null, null, null, 5::int2
from free_walk
cross join queued_walk
left join (select priority, run_at from walked order by priority desc, run_at desc limit 1) as last on true";

/// The statement for these conditions.
pub(in crate::queue) fn claim_statement(conditions: Conditions<'_>) -> &'static str {
    static FORMS: LazyLock<[String; 4]> = LazyLock::new(|| {
        let text = CLAIM
            .replace("@step_part@", STEPS.trim_start())
            .replace("@free_part@", FREE)
            .replace("@steps@", "$4, $5, $6, $7, $8) as step (below, priority, free_at, free_id, queued_at")
            .replace("@columns@", "job.id, job.priority, job.run_at");
        forms(&text, 2, 13)
    });
    &FORMS[form(conditions)]
}

/// The forms of a statement, for [`form`] to choose from: a condition that is not needed is not in it, because some of the walks
/// read nothing but an index as long as none asks for a column beside it. Given are the numbers of the parameters for the
/// tasks and for the first condition.
pub(in crate::queue) fn forms(text: &str, tasks: usize, first: usize) -> [String; 4] {
    let allowed = format!(" and (job.flags ?| ${first}) is not true");
    let (clock, clock_after_flags) = (format!("${first}"), format!("${}", first + 1));
    [("", "now()"), (&allowed, "now()"), ("", &clock), (&allowed, &clock_after_flags)].map(|(allowed, now)| {
        text.replace("@may_run@", MAY_RUN)
            .replace("@tasks@", &format!("${tasks}"))
            .replace("@allowed@", allowed)
            .replace("@now@", now)
    })
}

/// Which of the [`forms`].
pub(in crate::queue) fn form(conditions: Conditions<'_>) -> usize {
    usize::from(!conditions.forbidden_flags.is_empty()) + 2 * usize::from(conditions.now.is_some())
}
