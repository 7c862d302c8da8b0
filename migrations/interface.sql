-- The view and the functions for administrators as they are from revision 18 on, also over those of revisions 16 and 17.

create or replace view @schema@.jobs as
  select
    jobs.id,
    job_queues.queue_name,
    tasks.identifier as task_identifier,
    jobs.priority,
    jobs.run_at,
    jobs.attempts,
    jobs.max_attempts,
    jobs.last_error,
    jobs.created_at,
    jobs.updated_at,
    jobs.key,
    jobs.locked_at,
    jobs.locked_by,
    jobs.revision,
    jobs.flags
  from @schema@._private_jobs as jobs
  join @schema@._private_tasks as tasks on tasks.id = jobs.task_id
  left join @schema@._private_job_queues as job_queues on job_queues.id = jobs.job_queue_id;

-- The functions for administrators leave jobs alone that are being worked. A lock of four hours is taken for one whose
-- worker is gone.

create or replace function @schema@.complete_jobs(job_ids bigint[])
returns setof @schema@._private_jobs
language sql volatile
as $taskbay$
  delete from @schema@._private_jobs as job
    where job.id = any (job_ids)
      and (job.locked_at is null or job.locked_at < now() - interval '4 hours')
    returning job.*;
$taskbay$;

create or replace function @schema@.permanently_fail_jobs(job_ids bigint[], error_message text default null)
returns setof @schema@._private_jobs
language sql volatile
as $taskbay$
  update @schema@._private_jobs as job
    set
      last_error = coalesce(error_message, 'Manually marked as failed'),
      attempts = job.max_attempts,
      updated_at = now()
    where job.id = any (job_ids)
      and (job.locked_at is null or job.locked_at < now() - interval '4 hours')
    returning job.*;
$taskbay$;

create or replace function @schema@.reschedule_jobs(
  job_ids bigint[],
  run_at timestamp with time zone default null,
  priority integer default null,
  attempts integer default null,
  max_attempts integer default null
)
returns setof @schema@._private_jobs
language sql volatile
as $taskbay$
  update @schema@._private_jobs as job
    set
      run_at = coalesce(reschedule_jobs.run_at, job.run_at),
      priority = coalesce(reschedule_jobs.priority::smallint, job.priority),
      attempts = coalesce(reschedule_jobs.attempts::smallint, job.attempts),
      max_attempts = coalesce(reschedule_jobs.max_attempts::smallint, job.max_attempts),
      updated_at = now()
    where job.id = any (job_ids)
      and (job.locked_at is null or job.locked_at < now() - interval '4 hours')
    returning job.*;
$taskbay$;

create or replace function @schema@.remove_job(job_key text)
returns @schema@._private_jobs
language plpgsql strict volatile
as $taskbay$
declare
  removed @schema@._private_jobs;
begin
  delete from @schema@._private_jobs as job
    where job.key = job_key
      and (job.locked_at is null or job.locked_at < now() - interval '4 hours')
    returning job.* into removed;
  if removed.id is not null then
    perform pg_notify('jobs:insert', '{"r":' || random()::text || ',"count":-1}');
    return removed;
  end if;

  -- It runs: it may finish, but it is not tried again, and its key is free.
  update @schema@._private_jobs as job
    set key = null, attempts = job.max_attempts, updated_at = now()
    where job.key = job_key
    returning job.* into removed;
  return removed;
end;
$taskbay$;

create or replace function @schema@.force_unlock_workers(worker_ids text[])
returns void
language sql volatile
as $taskbay$
  update @schema@._private_jobs as job
    set locked_at = null, locked_by = null
    where job.locked_by = any (worker_ids);
  update @schema@._private_job_queues as queue
    set locked_at = null, locked_by = null
    where queue.locked_by = any (worker_ids);
$taskbay$;
