-- Revisions 11 to 15: gives the tables the names that they have from revision 16 on, and takes away the functions on them.

alter table @schema@.jobs rename to _private_jobs;
alter table @schema@.job_queues rename to _private_job_queues;
alter table @schema@.tasks rename to _private_tasks;
alter table @schema@.known_crontabs rename to _private_known_crontabs;

-- Revision 13 made these smaller.
alter type @schema@.job_spec alter attribute max_attempts type smallint;
alter type @schema@.job_spec alter attribute priority type smallint;

drop function @schema@.add_job;
drop function @schema@.add_jobs;
drop function @schema@.remove_job;
drop function @schema@.complete_jobs;
drop function @schema@.permanently_fail_jobs;
drop function @schema@.reschedule_jobs;

-- Revision 15 added the first, and took the others away, which were left from the tables before revision 11.
drop function if exists @schema@.force_unlock_workers;
drop function if exists @schema@.jobs__increase_job_queue_count();
drop function if exists @schema@.jobs__decrease_job_queue_count();
drop function if exists @schema@.tg__update_timestamp();
