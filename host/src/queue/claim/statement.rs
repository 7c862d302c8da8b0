//! The statement that claims jobs with and without queues.

use std::sync::LazyLock;

use super::{
    answer::{FACTS, FOUND_PRIORITIES, LOCKED_AT, MIN_TIES, QUEUED_FACTS, with_facts},
    free_scan::{FORMS, FREE_SCAN, RANGES, form, forms},
};
use crate::queue::{Conditions, Job};

/// $1 owner, $2 ids of tasks, $3 the most jobs, $4 to $9 the [ranges](super::Ranges), $10 the most jobs in queues to read, $11 to
/// $13 the [waiting](super::waiting) queues, $14 names of the tasks, then the [`Conditions`].
///
/// * `known`: the number of tasks that still have these ids. Unless it is all of them, there are no ranges and nothing is claimed.
/// * `free`: jobs without a queue. They have an index of their own.
/// * `edge`: the last of them, if they reach the limit. Jobs in queues matter only up to there.
/// * `reach`: the ranges of the scan for jobs in queues, cut at the edge.
/// * `scanned`: jobs in free and in busy queues. The index does not tell them from jobs without a queue, which are dropped outside
///   the scan: a planner that expects few jobs in queues would read and sort the whole backlog.
/// * `front`: the first scanned job of each queue.
/// * `ready`: waiting queues that are free by now. If they are many, one scan looks for their next jobs, `nearby`, and finds
///   `together`. Up to eight of those that it has `missed` get a short scan each, `single`.
/// * `turn`: the queues of the first jobs, with their rows locked. Postgres checks the newest version of a row, so a queue that was
///   taken after the snapshot is left out. The owner of that lock has the queue to itself.
/// * `heads`: the first job of each of those queues, locked and checked again for the same reason. If it is gone by now, its
///   queue stays unmarked.
/// * `passed`: the first job of each queue that was scanned and not claimed.
/// * `last_scanned`: the last scanned job in a queue, with its ties, if the scan was incomplete.
const CLAIM: &str = "
with
  @known_part@,
  @ranges_part@,
  free as materialized (
    select id, priority, run_at
    from (@free_part@
    ) as first
    limit $3
  ),
  free_scan as materialized (
    select count(*) as jobs, clock_timestamp() - statement_timestamp() as took from free
  ),
  edge as materialized (
    select
      last.priority,
      last.run_at,
      ties.first_id,
      ties.last_id,
      ties.jobs >= @min_ties@ as is_tied
    from (
      select priority, run_at
      from free
      where (select jobs from free_scan) = $3
      order by priority desc, run_at desc
      limit 1
    ) as last
    cross join lateral (
      select count(*) as jobs, min(id) as first_id, max(id) as last_id
      from free
      where free.priority = last.priority and free.run_at = last.run_at
    ) as ties
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
        when is_tied then edge.run_at - interval '1 microsecond'
        else edge.run_at
      end as end_at,
      case when stage.priority = edge.priority and is_tied then edge.run_at else stage.queued_at end as ties_at,
      case
        when stage.priority = edge.priority and is_tied and stage.queued_at = edge.run_at
          then coalesce(stage.queued_id, first_id - 1)
        when stage.priority = edge.priority and is_tied then first_id - 1
        when (stage.priority, stage.queued_at) > (edge.priority, edge.run_at) then null
        else stage.queued_id
      end as ties_begin,
      case when stage.priority = edge.priority and is_tied then last_id else stage.queued_id + 10000 end as ties_end
    from (
      select priority, found, queued_at, queued_id from scan_range
      union all
      select priority, null, null, null from edge where edge.priority not in (select priority from scan_range)
    ) as stage
    left join edge on true
    order by stage.priority
  ),
  scanned as materialized (
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
          where job.id > reach.ties_begin
            and job.id <= reach.ties_end
            and coalesce(job.is_available, false)
            and job.priority + 0 = reach.priority
            and job.run_at + interval '0' = reach.ties_at
            and @may_run@
          order by job.id
          limit (select 9223372036854775807)
        ) as ties
        union all
        select * from (
          select job.id, job.job_queue_id, job.priority, job.run_at
          from @schema@._private_jobs as job
          where job.is_available = true
            and job.priority = reach.priority
            and job.run_at >= reach.begin_at
            and job.run_at <= reach.end_at
            and (reach.ties_begin is null or job.run_at <> reach.ties_at
              or job.id <= reach.ties_begin or job.id > reach.ties_end)
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
    from scanned
    order by job_queue_id, priority, run_at, id
  ),
  queued_scan as materialized (
    select seen.jobs, clock_timestamp() - statement_timestamp() as took
    from (select count(*) as jobs from scanned) as seen
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
  near_start as materialized (
    select priority, run_at, 100 + 4 * (select count(*) from ready) as width
    from ready
    where (select count(*) from ready) > 4 and not missing
    order by priority, run_at
    limit 1
  ),
  nearby as materialized (
    select near.id, near.job_queue_id, near.priority, near.run_at, near.wanted
    from near_start
    cross join lateral (
      select job.id, job.job_queue_id, job.priority, job.run_at, (job.task_id = any (@ids@)@allowed@) as wanted
      from @schema@._private_jobs as job
      where job.is_available = true
        and job.priority = near_start.priority
        and job.run_at >= near_start.run_at
        and job.run_at <= @now@
      order by job.priority, job.run_at
      limit (select width from near_start)
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
        ready.priority = (select priority from near_start)
        and (select count(*) from nearby) < (select width from near_start)
      ) is true as gone
    from ready
    where ready.queue_id not in (select job_queue_id from together)
  ),
  single as materialized (
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
      select id, job_queue_id, priority, run_at from front where (select jobs from queued_scan) > 0
      union all
      select id, job_queue_id, priority, run_at from together
      union all
      select id, job_queue_id, priority, run_at from single where id is not null
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
    where (select jobs from free_scan) > 0
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
      select distinct on (scanned.job_queue_id) scanned.id, scanned.job_queue_id, scanned.priority, scanned.run_at
      from scanned
      join chosen on chosen.job_queue_id = scanned.job_queue_id and chosen.id <> scanned.id
      order by scanned.job_queue_id, scanned.priority, scanned.run_at, scanned.id
    )
  ),
  last_scanned as materialized (
    select last.priority, last.run_at, count(*)::int4 as ties, max(scanned.id) as id
    from (
      select priority, run_at
      from scanned
      where (select jobs from queued_scan) = $10
      order by priority desc, run_at desc
      limit 1
    ) as last
    join scanned on scanned.priority = last.priority and scanned.run_at = last.run_at
    group by last.priority, last.run_at
  ),
  @marked@
@answer@";

/// Marks the chosen jobs and their queues.
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

/// Only locks them, for a transaction that marks the jobs later.
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

/// The statement that finds and locks the same jobs, and answers as if they were marked.
pub(in crate::queue) fn careful_claim_statement(conditions: Conditions<'_>) -> &'static str {
    static ALL: LazyLock<[String; FORMS]> = LazyLock::new(|| statements(LOCKED));
    &ALL[form(conditions)]
}

fn statements(marked: &str) -> [String; FORMS] {
    let facts = FACTS.iter().chain([&FOUND_PRIORITIES, &LOCKED_AT]).chain(&QUEUED_FACTS);
    let text = CLAIM
        .replace("@marked@", marked.trim_start())
        .replace("@answer@", &with_facts("marked_job", Job::COLUMNS, facts))
        .replace("@took@", "(select took from free_scan)")
        .replace("@ranges_part@", RANGES.trim_start())
        .replace("@free_part@", FREE_SCAN)
        .replace(
            "@ranges@",
            "$4, $5, $6, $7, $8, $9) as scan_range (below, priority, free_at, free_id, queued_at, queued_id",
        )
        .replace("@min_ties@", &MIN_TIES.to_string())
        .replace("@columns@", "job.id, job.priority, job.run_at");
    forms(&text, 2, 14)
}
