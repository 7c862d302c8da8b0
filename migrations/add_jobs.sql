-- The functions that add jobs, as they are from revision 20 on, also over those of the revisions before.

create or replace function @schema@.add_jobs(specs @schema@.job_spec[], job_key_preserve_run_at boolean default false)
returns setof @schema@._private_jobs
language plpgsql volatile
as $taskbay$
begin
  -- A conflicting insert would use up an identity value, and these are integers: only missing names are inserted.
  insert into @schema@._private_tasks (identifier)
    select distinct spec.identifier
    from unnest(specs) as spec
    where not exists (select from @schema@._private_tasks as known where known.identifier = spec.identifier)
    on conflict do nothing;

  insert into @schema@._private_job_queues (queue_name)
    select distinct spec.queue_name
    from unnest(specs) as spec
    where spec.queue_name is not null
      and not exists (select from @schema@._private_job_queues as known where known.queue_name = spec.queue_name)
    on conflict do nothing;

  -- A job that runs, or has failed for good, cannot be changed any more: it loses its key to the new job, and will not be
  -- tried again.
  update @schema@._private_jobs as job
    set key = null, attempts = job.max_attempts, updated_at = now()
    from unnest(specs) as spec
    where spec.job_key is not null and job.key = spec.job_key and job.is_available is not true;

  -- Without any spec the sum of nulls is null, which sends an empty payload.
  perform pg_notify(
    'jobs:insert',
    '{"r":' || random()::text || ',"count":' || array_length(specs, 1)::text || '}'
  );

  return query
    insert into @schema@._private_jobs as job
      (job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
      select
        queue.id,
        task.id,
        coalesce(spec.payload, '{}'::json),
        coalesce(spec.run_at, now()),
        coalesce(spec.max_attempts, 25::smallint),
        spec.job_key,
        coalesce(spec.priority, 0::smallint),
        (select jsonb_object_agg(flag, true) from unnest(spec.flags) as flag)
      from unnest(specs) with ordinality as spec
        (identifier, payload, queue_name, run_at, max_attempts, job_key, priority, flags, place)
      join @schema@._private_tasks as task on task.identifier = spec.identifier
      left join @schema@._private_job_queues as queue on queue.queue_name = spec.queue_name
      order by spec.place
    on conflict (key) do update
      set
        job_queue_id = excluded.job_queue_id,
        task_id = excluded.task_id,
        payload = case
          when json_typeof(job.payload) = 'array' and json_typeof(excluded.payload) = 'array'
            then (job.payload::jsonb || excluded.payload::jsonb)::json
          else excluded.payload
        end,
        max_attempts = excluded.max_attempts,
        run_at = case
          when job_key_preserve_run_at and job.attempts = 0 then job.run_at
          else excluded.run_at
        end,
        priority = excluded.priority,
        revision = job.revision + 1,
        flags = excluded.flags,
        attempts = 0,
        last_error = null,
        updated_at = now()
      where job.locked_at is null
    returning job.*;
end;
$taskbay$;

create or replace function @schema@.add_job(
  identifier text,
  payload json default null,
  queue_name text default null,
  run_at timestamp with time zone default null,
  max_attempts integer default null,
  job_key text default null,
  priority integer default null,
  flags text[] default null,
  job_key_mode text default 'replace'
)
returns @schema@._private_jobs
language plpgsql volatile
as $taskbay$
declare
  added @schema@._private_jobs;
begin
  if job_key is null or job_key_mode is null or job_key_mode in ('replace', 'preserve_run_at') then
    select * into added
      from @schema@.add_jobs(
        array[(
          identifier, payload, queue_name, run_at, max_attempts::smallint, job_key, priority::smallint, flags
        )::@schema@.job_spec],
        job_key_mode = 'preserve_run_at'
      )
      limit 1;
    return added;
  end if;

  if job_key_mode <> 'unsafe_dedupe' then
    raise exception 'job_key_mode % is not known; it is one of replace, preserve_run_at and unsafe_dedupe',
      quote_literal(job_key_mode) using errcode = 'GWBKM';
  end if;

  insert into @schema@._private_tasks (identifier)
    select add_job.identifier
    where not exists (select from @schema@._private_tasks as known where known.identifier = add_job.identifier)
    on conflict do nothing;

  insert into @schema@._private_job_queues (queue_name)
    select add_job.queue_name
    where add_job.queue_name is not null
      and not exists (select from @schema@._private_job_queues as known where known.queue_name = add_job.queue_name)
    on conflict do nothing;

  insert into @schema@._private_jobs as job
    (job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags)
    select
      queue.id,
      task.id,
      coalesce(add_job.payload, '{}'::json),
      coalesce(add_job.run_at, now()),
      coalesce(add_job.max_attempts::smallint, 25::smallint),
      add_job.job_key,
      coalesce(add_job.priority::smallint, 0::smallint),
      (select jsonb_object_agg(flag, true) from unnest(add_job.flags) as flag)
    from @schema@._private_tasks as task
    left join @schema@._private_job_queues as queue on queue.queue_name = add_job.queue_name
    where task.identifier = add_job.identifier
  on conflict (key) do update
    -- Whatever state that job is in, it stays as it is: this is what is unsafe about it.
    set revision = job.revision + 1, updated_at = now()
  returning * into added;

  if added.revision = 0 then
    perform pg_notify('jobs:insert', '{"r":' || random()::text || ',"count":1}');
  end if;
  return added;
end;
$taskbay$;
