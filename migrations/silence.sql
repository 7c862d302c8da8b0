-- Revisions 11 to 17: from revision 18 on it is the functions that notify, not a trigger.

drop trigger _900_after_insert on @schema@._private_jobs;
drop function @schema@.tg_jobs__after_insert();
