//! The statement that claims jobs with and without queues.

use std::sync::LazyLock;

use super::{
    CROWD,
    answer::{FACTS, FOUND_PRIORITIES, LOCKED_AT, QUEUED_FACTS, with_facts},
    free_walk::{FORMS, FREE, STEPS, form, forms},
};
use crate::queue::{Conditions, Job};

/// $1 owner, $2 ids of tasks, $3 how many, $4 to $9 the steps, $10 how many jobs in queues to look at, $11 to $13 queues that
/// wait behind, $14 names of the tasks, then what the [`Conditions`] need: see [`claim_statement`].
///
/// * `known`: how many of the tasks still have these ids. Where it is not all, there are no steps and nothing is claimed.
/// * `free`: jobs without a queue, which have an index of their own and never look at queues.
/// * `edge`: where the last of them stands, if they are as many as wanted. Jobs in queues matter only up to there.
/// * `walked`: jobs in queues, whether these are free or not. The index knows nothing of jobs without a queue, so that these
///   are dropped outside of the walk: a planner that expects few jobs in queues would read and sort all of them.
/// * `front`: the first job of each queue that it has met.
/// * `ready`: queues that wait behind the walk and are free by now. Their next job is looked for by one walk for all of them if
///   they are many, which is `nearby`, and by a short one for each of the first of those that it has `missed`, as far as it has
///   not seen all.
/// * `turn`: the queues whose first job stands in front. It is the queue's row that is locked, and Postgres looks at its newest
///   version: a queue that was taken after this statement's snapshot is not available any more. Whoever holds that lock is
///   alone with the queue.
/// * `heads`: the first job of each of those queues, locked and looked at again for the same reason. It may be gone by
///   now; then its queue stays unmarked.
/// * `passed`: of each queue of which a job was met and not claimed, the first such job.
/// * `last_walked`: the last of the jobs in queues, with its ties, if there may be more behind.
const CLAIM: &str = "
with
  @known_part@,
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
    select
      last.priority,
      last.run_at,
      crowd.first_id,
      crowd.last_id,
      crowd.jobs >= @crowd@ as is_crowd
    from (
      select priority, run_at
      from free
      where (select jobs from free_walk) = $3
      order by priority desc, run_at desc
      limit 1
    ) as last
    cross join lateral (
      select count(*) as jobs, min(id) as first_id, max(id) as last_id
      from free
      where free.priority = last.priority and free.run_at = last.run_at
    ) as crowd
  ),
  reach as materialized (
    select
      stage.found,
      stage.priority,
      least(stage.priority, edge.priority) as gap_end,
      case
        when stage.queued_at is null then '-infinity'
        else least(stage.queued_at, @now@ - interval '250 milliseconds')
      end as begin_at,
      case
        when stage.priority > edge.priority then '-infinity'
        when stage.priority < edge.priority or edge.priority is null then @now@
        when is_crowd then edge.run_at - interval '1 microsecond'
        else edge.run_at
      end as end_at,
      case when stage.priority = edge.priority and is_crowd then edge.run_at else stage.queued_at end as crowd_at,
      case
        when stage.priority = edge.priority and is_crowd and stage.queued_at = edge.run_at
          then coalesce(stage.queued_id, first_id - 1)
        when stage.priority = edge.priority and is_crowd then first_id - 1
        when (stage.priority, stage.queued_at) > (edge.priority, edge.run_at) then null
        else stage.queued_id
      end as crowd_begin,
      case when stage.priority = edge.priority and is_crowd then last_id else stage.queued_id + 10000 end as crowd_end
    from (
      select priority, found, queued_at, queued_id from step
      union all
      select priority, null, null, null from edge where edge.priority not in (select priority from step)
    ) as stage
    left join edge on true
    order by stage.priority
  ),
  walked as materialized (
    select id, job_queue_id, priority, run_at
    from (
      select near.*
      from reach
      cross join lateral (
        select * from (
          select job.id, job.job_queue_id, job.priority, job.run_at
          from @schema@._private_jobs as job
          where job.is_available = true
            and job.priority >= reach.found
            and job.priority < reach.gap_end
            and @may_run@
          order by job.priority, job.run_at
          limit (select 9223372036854775807)
        ) as gap
        union all
        select * from (
          select job.id, job.job_queue_id, job.priority, job.run_at
          from @schema@._private_jobs as job
          where job.id > reach.crowd_begin
            and job.id <= reach.crowd_end
            and coalesce(job.is_available, false)
            and job.priority + 0 = reach.priority
            and job.run_at + interval '0' = reach.crowd_at
            and @may_run@
          order by job.id
          limit (select 9223372036854775807)
        ) as crowd
        union all
        select * from (
          select job.id, job.job_queue_id, job.priority, job.run_at
          from @schema@._private_jobs as job
          where job.is_available = true
            and job.priority = reach.priority
            and job.run_at >= reach.begin_at
            and job.run_at <= reach.end_at
            and (reach.crowd_begin is null or job.run_at <> reach.crowd_at
              or job.id <= reach.crowd_begin or job.id > reach.crowd_end)
            and @may_run@
          order by job.priority, job.run_at
          limit (select 9223372036854775807)
        ) as all_others
      ) as near
      where near.job_queue_id is not null
        and exists (select from @schema@._private_job_queues)
    ) as first
    limit $10
  ),
  front as materialized (
    select distinct on (job_queue_id) id, job_queue_id, priority, run_at
    from walked
    order by job_queue_id, priority, run_at, id
  ),
  queued_walk as materialized (
    select seen.jobs, clock_timestamp() - statement_timestamp() as took
    from (select count(*) as jobs from walked) as seen
    cross join (select count(*) from front) as met
  ),
  ready as materialized (
    select waiting.queue_id, waiting.priority, waiting.run_at, queue.id is null as missing
    from unnest($11, $12, $13) as waiting (queue_id, priority, run_at)
    left join @schema@._private_job_queues as queue on queue.id = waiting.queue_id
    left join front on front.job_queue_id = waiting.queue_id
    where @all_are_known@
      and queue.is_available is distinct from false
      and (front.id is null or (front.priority, front.run_at) > (waiting.priority, waiting.run_at))
  ),
  place as materialized (
    select priority, run_at, 100 + 4 * (select count(*) from ready) as width
    from ready
    where (select count(*) from ready) > 4 and not missing
    order by priority, run_at
    limit 1
  ),
  nearby as materialized (
    select near.id, near.job_queue_id, near.priority, near.run_at, near.wanted
    from place
    cross join lateral (
      select job.id, job.job_queue_id, job.priority, job.run_at, (job.task_id = any (@ids@)@allowed@) as wanted
      from @schema@._private_jobs as job
      where job.is_available = true
        and job.priority = place.priority
        and job.run_at >= place.run_at
        and job.run_at <= @now@
      order by job.priority, job.run_at
      limit (select width from place)
    ) as near
  ),
  together as materialized (
    select nearby.id, nearby.job_queue_id, nearby.priority, nearby.run_at
    from nearby
    join ready on ready.queue_id = nearby.job_queue_id
    where nearby.wanted
  ),
  missed as materialized (
    select
      ready.queue_id, ready.priority, ready.run_at,
      ready.missing or (
        ready.priority = (select priority from place)
        and (select count(*) from nearby) < (select width from place)
      ) is true as gone
    from ready
    where ready.queue_id not in (select job_queue_id from together)
  ),
  alone as materialized (
    select first.id, far.queue_id as job_queue_id, first.priority, first.run_at
    from (
      select queue_id, priority, run_at
      from missed
      where not gone
      order by priority, run_at
      limit 8
    ) as far
    left join lateral (
      select near.id, near.priority, near.run_at
      from (
        select job.id, job.job_queue_id, job.priority, job.run_at, (job.task_id = any (@ids@)@allowed@) as wanted
        from @schema@._private_jobs as job
        where job.is_available = true
          and job.priority = far.priority
          and job.run_at >= far.run_at
          and job.run_at <= @now@
        order by job.priority, job.run_at
        limit 200
      ) as near
      where near.job_queue_id = far.queue_id and near.wanted
      limit 1
    ) as first on true
  ),
  head as materialized (
    select distinct on (job_queue_id) id, job_queue_id, priority, run_at
    from (
      select id, job_queue_id, priority, run_at from front where (select jobs from queued_walk) > 0
      union all
      select id, job_queue_id, priority, run_at from together
      union all
      select id, job_queue_id, priority, run_at from alone where id is not null
    ) as candidate
    order by job_queue_id, priority, run_at, id
  ),
  turn as materialized (
    select head.id, head.job_queue_id, queue.queue_name
    from head
    join @schema@._private_job_queues as queue on queue.id = head.job_queue_id
    where queue.is_available = true
    order by head.priority, head.run_at, head.id
    limit $3
    for update of queue skip locked
  ),
  heads as materialized (
    select job.id, job.job_queue_id, turn.queue_name, job.priority, job.run_at
    from turn
    join @schema@._private_jobs as job on job.id = turn.id and job.job_queue_id = turn.job_queue_id
    where job.is_available = true
      and @may_run@
    for update of job skip locked
  ),
  chosen as materialized (
    select id, null::int4 as job_queue_id, null::text as queue_name, priority, run_at
    from free
    where (select jobs from free_walk) > 0
    union all
    select id, job_queue_id, queue_name, priority, run_at from heads
    order by priority, run_at, id
    limit $3
  ),
  passed as materialized (
    select id, job_queue_id, priority, run_at
    from front
    where not exists (select from chosen where chosen.job_queue_id = front.job_queue_id)
    union all
    (
      select distinct on (walked.job_queue_id) walked.id, walked.job_queue_id, walked.priority, walked.run_at
      from walked
      join chosen on chosen.job_queue_id = walked.job_queue_id and chosen.id <> walked.id
      order by walked.job_queue_id, walked.priority, walked.run_at, walked.id
    )
  ),
  last_walked as materialized (
    select last.priority, last.run_at, count(*)::int4 as ties, max(walked.id) as id
    from (
      select priority, run_at
      from walked
      where (select jobs from queued_walk) = $10
      order by priority desc, run_at desc
      limit 1
    ) as last
    join walked on walked.priority = last.priority and walked.run_at = last.run_at
    group by last.priority, last.run_at
  ),
  @marked@
@answer@";

/// Marks what was chosen.
pub(super) const MARKED: &str = "
  marked_queue as (
    update @schema@._private_job_queues as queue
    set locked_by = $1, locked_at = now()
    from chosen
    where queue.id = chosen.job_queue_id
  ),
  marked_job as (
    update @schema@._private_jobs as job
    set attempts = job.attempts + 1, locked_by = $1, locked_at = now()
    from chosen
    where job.id = chosen.id
    returning
      job.id, job.task_id, job.job_queue_id, chosen.queue_name, job.payload::text, job.priority, job.run_at, job.attempts,
      job.max_attempts, job.last_error, job.created_at, job.updated_at, job.key, job.revision, job.flags::text
  )";

/// Leaves it at the locks, for a transaction that marks the jobs later.
pub(super) const LOCKED: &str = "
  marked_job as (
    select
      job.id, job.task_id, job.job_queue_id, chosen.queue_name, job.payload::text, job.priority, job.run_at,
      (job.attempts + 1)::int2, job.max_attempts, job.last_error, job.created_at, job.updated_at, job.key, job.revision,
      job.flags::text
    from chosen
    join @schema@._private_jobs as job on job.id = chosen.id
  )";

/// The statement for these conditions.
pub(in crate::queue) fn claim_statement(conditions: Conditions<'_>) -> &'static str {
    static ALL: LazyLock<[String; FORMS]> = LazyLock::new(|| statements(MARKED));
    &ALL[form(conditions)]
}

/// The one that finds and locks the same jobs, and answers as if they were marked.
pub(in crate::queue) fn careful_claim_statement(conditions: Conditions<'_>) -> &'static str {
    static ALL: LazyLock<[String; FORMS]> = LazyLock::new(|| statements(LOCKED));
    &ALL[form(conditions)]
}

fn statements(marked: &str) -> [String; FORMS] {
    let facts = FACTS.iter().chain([&FOUND_PRIORITIES, &LOCKED_AT]).chain(&QUEUED_FACTS);
    let text = CLAIM
        .replace("@marked@", marked.trim_start())
        .replace("@answer@", &with_facts("marked_job", Job::COLUMNS, facts))
        .replace("@took@", "(select took from free_walk)")
        .replace("@step_part@", STEPS.trim_start())
        .replace("@free_part@", FREE)
        .replace("@steps@", "$4, $5, $6, $7, $8, $9) as step (below, priority, free_at, free_id, queued_at, queued_id")
        .replace("@crowd@", &CROWD.to_string())
        .replace("@columns@", "job.id, job.priority, job.run_at");
    forms(&text, 2, 14)
}
