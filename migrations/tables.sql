-- The tables and the type as they are from revision 11 on, under the names that they have from revision 16 on.
--
-- The host puts the quoted name of the schema for @schema@. The odd names (jobs_id_seq1, jobs_pkey1, jobs_key_key1 ...) are
-- those that a database has which grew revision by revision: error messages, dumps and later revisions go by them, and the
-- names without the 1 may still be those of the tables that these take the place of.
--
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

-- Revision 8 made this one; an older database has it under its old name until it is renamed.
create table if not exists @schema@._private_known_crontabs (
  identifier text constraint known_crontabs_pkey primary key,
  known_since timestamp with time zone not null,
  last_execution timestamp with time zone
);
alter table @schema@._private_known_crontabs enable row level security;

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
