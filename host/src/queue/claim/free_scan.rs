//! The scan for jobs without a queue, as a part of the statements of both lanes.

use crate::queue::Conditions;

/// The job is due, of one of the tasks, and has no forbidden flag.
const MAY_RUN: &str = "job.run_at <= @now@ and job.task_id = any (@ids@)@allowed@";

/// The number of tasks that still have the ids known here. If an id belongs to another task by now, nothing is claimed. Postgres
/// evaluates this once for each statement.
const KNOWN: &str = "
  known as materialized (
    select count(*)::int4 as tasks
    from unnest(@ids@, @names@) as known (id, name)
    join @schema@._private_tasks as task on task.id = known.id and task.identifier = known.name
  )";
const ALL_ARE_KNOWN: &str = "(select tasks from known) = cardinality(@ids@)";

/// The ranges in the order of priority. `found` is the first priority in the gap before the range, if there is any. A gap is scanned
/// from there as a whole; afterwards its priorities are known.
pub(in crate::queue) const RANGES: &str = "
  scan_range as materialized (
    select scan_range.*, (
      select job.priority
      from @schema@._private_jobs as job
      where job.is_available = true and job.priority > scan_range.below and job.priority < scan_range.priority
      order by job.priority
      limit 1
    ) as found
    from unnest(@ranges@)
    where @all_are_known@
  )";

/// The scan for jobs without a queue, range by range: first the gap, then the rest of a run of ties, then everything from the cursor.
///
/// * The scan starts at least 250 ms in the past, because `run_at` is the time when a transaction began: a short one cannot add
///   a job behind the cursor.
/// * Ties are jobs that were added together and share a time. The index has no position among them, so they are scanned by
///   their ids along the primary key: the conditions are written so that no other index serves them.
/// * The batch limits tell the planner that few rows are wanted, so that it reads along the indexes instead of sorting the whole
///   backlog; the outermost limit ends the scan.
pub(in crate::queue) const FREE_SCAN: &str = "
      select near.*
      from scan_range
      cross join lateral (
        select * from (
          select @columns@
          from @schema@._private_jobs as job
          where job.is_available = true
            and job.job_queue_id is null
            and job.priority >= scan_range.found
            and job.priority < scan_range.priority
            and @may_run@
          order by job.priority, job.run_at
          limit @batch_limit@
          for update skip locked
        ) as gap
        union all
        select * from (
          select @columns@
          from @schema@._private_jobs as job
          where job.id > scan_range.free_id
            and job.id <= scan_range.free_id + 10000
            and coalesce(job.is_available, false)
            and job.job_queue_id is null
            and job.priority + 0 = scan_range.priority
            and job.run_at + interval '0' = scan_range.free_at
            and @may_run@
          order by job.id
          limit @batch_limit@
          for update skip locked
        ) as ties
        union all
        select * from (
          select @columns@
          from @schema@._private_jobs as job
          where job.is_available = true
            and job.job_queue_id is null
            and job.priority = scan_range.priority
            and job.run_at >= case
              when scan_range.free_at is null then '-infinity'
              else least(scan_range.free_at, @now@ - interval '250 milliseconds')
            end
            and (scan_range.free_id is null or job.run_at <> scan_range.free_at
              or job.id <= scan_range.free_id or job.id > scan_range.free_id + 10000)
            and @may_run@
          order by job.priority, job.run_at
          limit @batch_limit@
          for update skip locked
        ) as all_others
      ) as near
      limit @batch_limit@";

/// The same jobs without ranges, for the [fast path](super::FastPath).
pub(in crate::queue) const PROBE: &str = "
    select @columns@
    from @schema@._private_jobs as job
    where @all_are_known@ and job.is_available = true and job.job_queue_id is null and @may_run@
    order by job.priority, job.run_at
    limit @batch_limit@
    for update skip locked";

/// The forms of a statement, from which [`form`] chooses. A form contains only the conditions in use, because some scans read
/// nothing but an index as long as no condition needs another column. `ids` and `names` are the numbers of the parameters for the ids
/// and the names of the tasks; the parameters of the conditions follow the names.
pub(in crate::queue) fn forms(text: &str, ids: usize, names: usize) -> [String; FORMS] {
    std::array::from_fn(|form| {
        // In the order of `Conditions::parameters`.
        let mut parameter = names + 1..;
        let mut next = |bit: usize| (form & bit != 0).then(|| parameter.next()).flatten();
        let flags = next(FLAGS).map(|number| format!(" and (job.flags ?| ${number}) is not true"));
        let now = next(NOW).map_or_else(|| "now()".to_owned(), |number| format!("${number}"));
        let left_out = next(LEFT_OUT).map(|number| format!(" and job.id <> all (${number})"));
        text.replace("@may_run@", MAY_RUN)
            .replace("@known_part@", KNOWN.trim_start())
            .replace("@all_are_known@", ALL_ARE_KNOWN)
            .replace("@ids@", &format!("${ids}"))
            .replace("@names@", &format!("${names}"))
            .replace("@allowed@", &(flags.unwrap_or_default() + &left_out.unwrap_or_default()))
            .replace("@now@", &now)
    })
}

/// The number of forms: with and without each of three conditions.
pub(in crate::queue) const FORMS: usize = 8;
const FLAGS: usize = 1;
const NOW: usize = 2;
const LEFT_OUT: usize = 4;

/// The index among the [`forms`].
pub(in crate::queue) fn form(conditions: Conditions<'_>) -> usize {
    FLAGS * usize::from(!conditions.forbidden_flags.is_empty())
        + NOW * usize::from(conditions.now.is_some())
        + LEFT_OUT * usize::from(!conditions.left_out.is_empty())
}
