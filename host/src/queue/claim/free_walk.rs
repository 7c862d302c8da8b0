//! The walk over jobs without a queue, as a part of statements: both lanes have it.

use crate::queue::Conditions;

/// A job whose queue is not asked about is due, of one of the tasks, and has no forbidden flag.
const MAY_RUN: &str = "job.run_at <= @now@ and job.task_id = any (@ids@)@allowed@";

/// How many of the tasks still have the ids by which they are known here. An id may be another task's by now, and then nothing is
/// claimed. Postgres evaluates this once for each statement.
const KNOWN: &str = "
  known as materialized (
    select count(*)::int4 as tasks
    from unnest(@ids@, @names@) as known (id, name)
    join @schema@._private_tasks as task on task.id = known.id and task.identifier = known.name
  )";
const ALL_ARE_KNOWN: &str = "(select tasks from known) = cardinality(@ids@)";

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
    where @all_are_known@
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

/// The same jobs without any steps, as [`super::Calm`] allows.
pub(in crate::queue) const IN_ONE_GO: &str = "
    select @columns@
    from @schema@._private_jobs as job
    where @all_are_known@ and job.is_available = true and job.job_queue_id is null and @may_run@
    order by job.priority, job.run_at
    limit 1000
    for update skip locked";

/// The forms of a statement, for [`form`] to choose from: a condition that is not needed is not in it, because some of the walks
/// read nothing but an index as long as none asks for a column beside it. Given are the numbers of the parameters for the
/// ids and the names of the tasks; those of the conditions follow the names.
pub(in crate::queue) fn forms(text: &str, ids: usize, names: usize) -> [String; FORMS] {
    std::array::from_fn(|form| {
        // In the order of `Conditions::parameters`.
        let mut parameter = names + 1..;
        let mut next = |bit: usize| (form & bit != 0).then(|| parameter.next()).flatten();
        let flags = next(FLAGS).map(|place| format!(" and (job.flags ?| ${place}) is not true"));
        let now = next(NOW).map_or_else(|| "now()".to_owned(), |place| format!("${place}"));
        let left_out = next(LEFT_OUT).map(|place| format!(" and job.id <> all (${place})"));
        text.replace("@may_run@", MAY_RUN)
            .replace("@known_part@", KNOWN.trim_start())
            .replace("@all_are_known@", ALL_ARE_KNOWN)
            .replace("@ids@", &format!("${ids}"))
            .replace("@names@", &format!("${names}"))
            .replace("@allowed@", &(flags.unwrap_or_default() + &left_out.unwrap_or_default()))
            .replace("@now@", &now)
    })
}

/// How many there are: with and without each of three conditions.
pub(in crate::queue) const FORMS: usize = 8;
const FLAGS: usize = 1;
const NOW: usize = 2;
const LEFT_OUT: usize = 4;

/// Which of the [`forms`].
pub(in crate::queue) fn form(conditions: Conditions<'_>) -> usize {
    FLAGS * usize::from(!conditions.forbidden_flags.is_empty())
        + NOW * usize::from(conditions.now.is_some())
        + LEFT_OUT * usize::from(!conditions.left_out.is_empty())
}
