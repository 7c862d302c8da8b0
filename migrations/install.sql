-- Gives a fresh database the graphile_worker schema at revision 20, in one transaction.
--
-- The host puts the quoted name of the schema for @schema@. The odd names (jobs_id_seq1, jobs_pkey1, jobs_key_key1 …) are
-- those that a database has which grew revision by revision: error messages, dumps and later revisions go by them.

-- The host makes the schema itself if it is missing, because that asks for a right that a careful administrator withholds,
-- and adds the column `breaking` to a table of migrations that was prepared by an old manual.

create table if not exists @schema@.migrations (
  id integer constraint migrations_pkey primary key,
  ts timestamp with time zone default now() not null,
  breaking boolean default false not null
);

-- These rows come before everything else because they are the lock: whoever installs at the same time, in whatever
-- language, waits here for the end of this transaction and then learns by the unique violation that the work is done.
insert into @schema@.migrations (id, breaking)
  select revision, revision in (1, 3, 11, 13, 14, 16, 19)
  from generate_series(1, 20) as revision
  order by revision;

-- Tables. None has a foreign key, and each has row-level security without a policy: only the owner sees rows.

create table @schema@._private_tasks (
  id integer generated always as identity (sequence name @schema@.tasks_id_seq) constraint tasks_pkey primary key,
  identifier text not null
    constraint tasks_identifier_key unique
    constraint tasks_identifier_check check (length(identifier) <= 128)
);
alter table @schema@._private_tasks enable row level security;

create table @schema@._private_job_queues (
  id integer generated always as identity (sequence name @schema@.job_queues_id_seq)
    constraint job_queues_pkey1 primary key,
  queue_name text not null
    constraint job_queues_queue_name_key unique
    constraint job_queues_queue_name_check check (length(queue_name) <= 128),
  locked_at timestamp with time zone,
  locked_by text,
  is_available boolean generated always as (locked_at is null) stored not null
);
alter table @schema@._private_job_queues enable row level security;

create table @schema@._private_jobs (
  id bigint generated always as identity (sequence name @schema@.jobs_id_seq1) constraint jobs_pkey1 primary key,
  job_queue_id integer,
  task_id integer not null,
  payload json default '{}'::json not null,
  priority smallint default 0 not null,
  run_at timestamp with time zone default now() not null,
  attempts smallint default 0 not null,
  max_attempts smallint default 25 not null constraint jobs_max_attempts_check check (max_attempts >= 1),
  last_error text,
  created_at timestamp with time zone default now() not null,
  updated_at timestamp with time zone default now() not null,
  key text
    constraint jobs_key_key1 unique
    constraint jobs_key_check check (length(key) > 0 and length(key) <= 512),
  locked_at timestamp with time zone,
  locked_by text,
  revision integer default 0 not null,
  flags jsonb,
  is_available boolean generated always as (locked_at is null and attempts < max_attempts) stored not null
);
alter table @schema@._private_jobs enable row level security;

create index jobs_main_index on @schema@._private_jobs (priority, run_at)
  include (id, task_id, job_queue_id)
  where is_available = true;
create index jobs_no_queue_index on @schema@._private_jobs (priority, run_at)
  include (id, task_id)
  where is_available = true and job_queue_id is null;

create table @schema@._private_known_crontabs (
  identifier text constraint known_crontabs_pkey primary key,
  known_since timestamp with time zone not null,
  last_execution timestamp with time zone
);
alter table @schema@._private_known_crontabs enable row level security;

-- What other programs may rely on: the view, the type and the seven functions.

create view @schema@.jobs as
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

create type @schema@.job_spec as (
  identifier text,
  payload json,
  queue_name text,
  run_at timestamp with time zone,
  max_attempts smallint,
  job_key text,
  priority smallint,
  flags text[]
);

create function @schema@.add_jobs(specs @schema@.job_spec[], job_key_preserve_run_at boolean default false)
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

create function @schema@.add_job(
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

-- The functions for administrators leave jobs alone that are being worked. A lock of four hours is taken for one whose
-- worker is gone.

create function @schema@.complete_jobs(job_ids bigint[])
returns setof @schema@._private_jobs
language sql volatile
as $taskbay$
  delete from @schema@._private_jobs as job
    where job.id = any (job_ids)
      and (job.locked_at is null or job.locked_at < now() - interval '4 hours')
    returning job.*;
$taskbay$;

create function @schema@.permanently_fail_jobs(job_ids bigint[], error_message text default null)
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

create function @schema@.reschedule_jobs(
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

create function @schema@.remove_job(job_key text)
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

create function @schema@.force_unlock_workers(worker_ids text[])
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

-- Running workers hear of every revision, in order.
select pg_notify(
    'worker:migrate',
    '{"migrationNumber":' || migration.id::text || ',"breaking":' || migration.breaking::text || '}'
  )
  from @schema@.migrations as migration
  order by migration.id;
