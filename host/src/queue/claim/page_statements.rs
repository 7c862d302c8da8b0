//! The statements of a full scan by pages: they read priorities and pages, and claim candidates.

use std::sync::LazyLock;

use super::{
    answer::{FACTS, Fact, LOCKED_AT, with_facts},
    free_scan::{FORMS, form, forms},
    statement::{LOCKED, MARKED},
};
use crate::queue::{Conditions, Job};

/// $1 ids of tasks, $2 their names, then the [`Conditions`]. Returns up to 64 priorities and the time. Each priority takes one
/// look-up in the index.
const PRIORITIES: &str = "
with recursive known_priority as (
  (
    select job.priority, 1 as number
    from @schema@._private_jobs as job
    where job.is_available = true
    order by job.priority
    limit 1
  )
  union all
  select
    (
      select job.priority
      from @schema@._private_jobs as job
      where job.is_available = true and job.priority > known_priority.priority
      order by job.priority
      limit 1
    ),
    known_priority.number + 1
  from known_priority
  where known_priority.priority is not null and known_priority.number < 64
)
select coalesce(array_agg(priority), '{}'), @now@
from known_priority
where priority is not null";

/// $1 ids of tasks, $2 priority, $3 time, and $4 id of the [`super::page::PageStart`], $5 up to when jobs are due, $6 the most entries,
/// $7 names of the tasks, then the [`Conditions`].
///
/// Returns the jobs that may be claimed, and then the [facts](PAGE_FACTS) about the page.
///
/// `here` is the first existing priority from $2 on. It is empty if an id belongs to another task by now.
const PAGE: &str = "
with
  @known_part@,
  here as materialized (
    select job.priority
    from @schema@._private_jobs as job
    where job.is_available = true and job.priority >= $2 and @all_are_known@
    order by job.priority
    limit 1
  ),
  page as materialized (
    select job.id, job.job_queue_id, job.priority, job.run_at, (job.task_id = any (@ids@)@allowed@) as wanted
    from @schema@._private_jobs as job
    where job.is_available = true
      and job.priority = (select priority from here)
      and job.run_at >= case when (select priority from here) = $2 then coalesce($3, '-infinity') else '-infinity' end
      and job.run_at <= $5
    order by job.priority, job.run_at
    limit $6
  )
@answer@";

/// The same along the primary key, for a run of ties.
const TIES_PAGE: &str = "
with
  @known_part@,
  here as materialized (select $2 as priority where @all_are_known@),
  page as materialized (
    select job.id, job.job_queue_id, job.priority, job.run_at, (
      job.is_available = true and job.priority = $2 and job.run_at = $3 and job.task_id = any (@ids@)@allowed@
    ) as wanted
    from @schema@._private_jobs as job
    where job.id > $4
    order by job.id
    limit $6
  )
@answer@";

/// Facts about a page.
const PAGE_FACTS: [Fact; 5] = [
    ("known_tasks", "int4", "(select tasks from known)"),
    ("entries", "int8", "(select count(*) from page)"),
    ("page_priority", "int2", "(select priority from here)"),
    ("last_run_at", "timestamptz", "(select max(run_at) from page)"),
    ("highest_id", "int8", "(select max(id) from page)"),
];

/// $1 owner, $2 ids of tasks, $3 ids of jobs, at most one of each queue, $4 names of the tasks, then the [`Conditions`]. Returns the
/// same as the statement that scans for jobs, and locks in the same order: the queue, then its job.
const PICKED: &str = "
with
  @known_part@,
  free as materialized (
    select job.id, job.priority, job.run_at
    from @schema@._private_jobs as job
    where @all_are_known@
      and job.id = any ($3)
      and coalesce(job.is_available, false)
      and job.job_queue_id is null
      and @may_run@
    for update skip locked
  ),
  turn as materialized (
    select job.id, job.job_queue_id, queue.queue_name
    from @schema@._private_jobs as job
    join @schema@._private_job_queues as queue on queue.id = job.job_queue_id
    where @all_are_known@ and job.id = any ($3) and queue.is_available = true
    for update of queue skip locked
  ),
  heads as materialized (
    select job.id, job.job_queue_id, turn.queue_name, job.priority, job.run_at
    from turn
    join @schema@._private_jobs as job on job.id = turn.id and job.job_queue_id = turn.job_queue_id
    where coalesce(job.is_available, false)
      and @may_run@
    for update of job skip locked
  ),
  chosen as materialized (
    select id, null::int4 as job_queue_id, null::text as queue_name, priority, run_at from free
    union all
    select id, job_queue_id, queue_name, priority, run_at from heads
  ),
  @marked@
@answer@";

pub(in crate::queue) fn priorities_statement(conditions: Conditions<'_>) -> &'static str {
    static ALL: LazyLock<[String; FORMS]> = LazyLock::new(|| forms(PRIORITIES, 1, 2));
    &ALL[form(conditions)]
}

/// The statement that reads a page, of ties or of different times.
pub(in crate::queue) fn page_statement(in_ties: bool, conditions: Conditions<'_>) -> &'static str {
    static ALL: LazyLock<[[String; FORMS]; 2]> = LazyLock::new(|| [PAGE, TIES_PAGE].map(of_page));
    &ALL[usize::from(in_ties)][form(conditions)]
}

/// The statement that claims candidates, or `in_parts` the one that only locks them.
pub(in crate::queue) fn claim_picked_statement(in_parts: bool, conditions: Conditions<'_>) -> &'static str {
    static ALL: LazyLock<[[String; FORMS]; 2]> = LazyLock::new(|| [MARKED, LOCKED].map(of_claim));
    &ALL[usize::from(in_parts)][form(conditions)]
}

fn of_page(text: &str) -> [String; FORMS] {
    let candidates = "(select id, job_queue_id, priority, run_at from page where wanted)";
    forms(&text.replace("@answer@", &with_facts(candidates, 4, PAGE_FACTS.iter())), 1, 7)
}

fn of_claim(marked: &str) -> [String; FORMS] {
    let text = PICKED
        .replace("@marked@", marked.trim_start())
        .replace("@answer@", &with_facts("marked_job", Job::COLUMNS, FACTS.iter().chain([&LOCKED_AT])))
        .replace("@took@", "clock_timestamp() - statement_timestamp()");
    forms(&text, 2, 4)
}
