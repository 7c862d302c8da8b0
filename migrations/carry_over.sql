-- Revisions 1 to 10: moves the jobs from the tables that were put aside into those of today.

insert into @schema@._private_tasks (identifier)
  select distinct task_identifier from @schema@.jobs_legacy order by task_identifier;

insert into @schema@._private_job_queues (queue_name)
  select distinct queue_name from @schema@.jobs_legacy where queue_name is not null order by queue_name;

-- Jobs keep their ids, because applications may have noted them. They do not keep their locks: the host has made sure that
-- no lock is younger than four hours, and those that are older are of workers that are gone.
insert into @schema@._private_jobs (
    id, job_queue_id, task_id, payload, priority, run_at, attempts, max_attempts, last_error, created_at, updated_at, key,
    revision, flags
  )
  overriding system value
  select
    job.id,
    queue.id,
    task.id,
    job.payload,
    job.priority,
    job.run_at,
    job.attempts,
    job.max_attempts,
    job.last_error,
    job.created_at,
    job.updated_at,
    job.key,
    job.revision,
    job.flags
  from @schema@.jobs_legacy as job
  join @schema@._private_tasks as task on task.identifier = job.task_identifier
  left join @schema@._private_job_queues as queue on queue.queue_name = job.queue_name
  order by job.id;

-- The dollars are quotation marks that a name in quotation marks may stand between.
select setval($taskbay$@schema@.jobs_id_seq1$taskbay$::regclass, last_value, is_called) from @schema@.jobs_id_seq;

drop table @schema@.jobs_legacy;
drop table @schema@.job_queues_legacy;
drop function @schema@.tg_jobs__notify_new_jobs();
drop function @schema@.tg__update_timestamp();
drop function @schema@.jobs__increase_job_queue_count();
drop function @schema@.jobs__decrease_job_queue_count();

-- There are jobs that no program has heard of under their new tables.
select pg_notify('jobs:insert', '{"r":' || random()::text || ',"count":' || count(*)::text || '}')
  from @schema@._private_jobs where is_available;
