-- Revisions 1 to 10: puts the old tables aside, all in the form of revision 10, and takes away the functions on them.

-- From here to the end of the transaction nobody adds or takes a job. The tables come in the order in which workers lock
-- them.
lock table @schema@.jobs, @schema@.job_queues in access exclusive mode;

-- What came with revisions 2, 5 and 8. The defaults are what those revisions gave to rows that were there.
alter table @schema@.jobs
  add column if not exists key text,
  add column if not exists locked_at timestamp with time zone,
  add column if not exists locked_by text,
  add column if not exists revision integer default 0 not null,
  add column if not exists flags jsonb;

alter table @schema@.jobs rename to jobs_legacy;
alter table @schema@.job_queues rename to job_queues_legacy;
alter table if exists @schema@.known_crontabs rename to _private_known_crontabs;

-- Their arguments differ from revision to revision, and no revision has two of a name.
drop function if exists @schema@.add_job;
drop function if exists @schema@.get_job;
drop function if exists @schema@.complete_job;
drop function if exists @schema@.fail_job;
drop function if exists @schema@.remove_job;
drop function if exists @schema@.complete_jobs;
drop function if exists @schema@.permanently_fail_jobs;
drop function if exists @schema@.reschedule_jobs;
