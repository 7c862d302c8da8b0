//! Actions of an administrator through the library: what each batch reports.

use taskbay::{
    admin::{Action, Admin, Changes, Left, LivingHosts, Precision, Selection},
    queue::{JobFilter, JobOrder, JobState, NewJob, Reschedule, RowAccess, StoredJob},
};

use crate::harness::postgres::TestDatabase;

async fn add(database: &TestDatabase, task: &str) -> i64 {
    let session = database.database().session().await.expect("connect");
    session.add_job(&NewJob::new(task)).await.expect("add a job").id
}

async fn open(database: &TestDatabase, action: &Action) -> Admin {
    Admin::open(&database.database(), action.access()).await.expect("open")
}

fn ids(jobs: &[StoredJob]) -> Vec<i64> {
    jobs.iter().map(|job| job.id).collect()
}

/// Which jobs are changed, and which are left and why.
async fn all(mut changes: Changes<'_>) -> (Vec<i64>, Vec<(i64, Left)>) {
    let (mut changed, mut left) = (Vec::new(), Vec::new());
    while let Some(batch) = changes.next().await.expect("change jobs") {
        changed.extend(ids(&batch.changed));
        left.extend(batch.left);
    }
    (changed, left)
}

#[tokio::test]
async fn each_job_that_an_action_leaves_alone_comes_with_the_reason() {
    let database = TestDatabase::installed().await;
    let [due, held, failed] = [add(&database, "a").await, add(&database, "a").await, add(&database, "a").await];
    let sql = format!(
        "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'pool-1' where id = {held};
         update graphile_worker._private_jobs set attempts = max_attempts where id = {failed}"
    );
    database.execute(&sql).await;
    let absent = failed + 1;

    let later = Action::Reschedule(Reschedule { priority: Some(3), ..Reschedule::default() });
    let admin = open(&database, &later).await;
    let selected = admin.select(Selection::Ids(vec![due, held, failed, absent, due])).await.unwrap();
    let (changed, left) = all(selected.change(later)).await;
    assert_eq!(changed, [due], "a job whose id is given twice is changed once");
    let [(first, Left::Held { worker, since: Some(_) }), rest @ ..] = left.as_slice() else { panic!("{left:?}") };
    assert_eq!((*first, worker.as_deref()), (held, Some("pool-1")));
    assert_eq!(rest, [(failed, Left::Spent), (absent, Left::Gone)]);

    let selected = admin.select(Selection::Ids(vec![due, failed])).await.unwrap();
    assert_eq!(all(selected.change(Action::Retry)).await, (vec![failed], vec![(due, Left::Untried)]));
}

#[tokio::test]
async fn a_selection_leaves_out_jobs_that_are_added_after_it() {
    let database = TestDatabase::installed().await;
    let before = add(&database, "a").await;
    let admin = open(&database, &Action::Complete).await;
    let filter = JobFilter { tasks: vec!["a".to_owned()], ..JobFilter::default() };
    let selected = admin.select(Selection::Matching(filter.clone())).await.unwrap();
    assert_eq!(selected.count().await.unwrap(), 1);
    let after = add(&database, "a").await;
    assert_eq!(all(selected.change(Action::Complete)).await, (vec![before], vec![]));
    let mut listing = admin.list(&filter, JobOrder::Oldest, Some(1)).await.unwrap();
    assert_eq!(listing.next().await.unwrap().map(|job| job.id), Some(after));
    assert!(listing.next().await.unwrap().is_none() && !listing.has_more() && !listing.is_empty());
}

/// The database refuses a job, so that the batch is taken apart; then something fails for which no job is to blame.
#[tokio::test]
async fn jobs_that_were_changed_before_an_error_are_returned_before_the_error() {
    let database = TestDatabase::installed().await;
    let [good, refused, _between, failing] =
        [add(&database, "a").await, add(&database, "a").await, add(&database, "a").await, add(&database, "a").await];
    let sql = format!(
        "create function graphile_worker.guard() returns trigger language plpgsql as $$
         begin
           if old.id = {refused} then raise exception 'not this one' using errcode = 'P0001'; end if;
           if old.id = {failing} then raise exception 'not now' using errcode = '0A000'; end if;
           return old;
         end $$;
         create trigger guard before delete on graphile_worker._private_jobs
           for each row execute function graphile_worker.guard()"
    );
    database.execute(&sql).await;

    let admin = open(&database, &Action::Complete).await;
    let selected = admin.select(Selection::Ids((good..=failing).collect())).await.unwrap();
    let mut changes = selected.change(Action::Complete);
    let batch = changes.next().await.expect("what was done before the error").expect("a batch");
    assert_eq!(ids(&batch.changed), [good]);
    let [(id, Left::Refused(reason))] = batch.left.as_slice() else { panic!("{:?}", batch.left) };
    assert!(*id == refused && reason.contains("not this one"), "{id}: {reason}");
    let error = changes.next().await.expect_err("the error").to_string();
    assert!(error.contains("not now"), "{error}");
    assert!(changes.next().await.expect("nothing after the error").is_none());
    let stored = database.jobs().await;
    assert_eq!(stored.len(), 3);
}

#[tokio::test]
async fn workers_are_listed_with_what_they_hold_and_unlocked_with_a_report() {
    let database = TestDatabase::installed().await;
    let id = add(&database, "a").await;
    let lock = "update graphile_worker._private_jobs set locked_at = now(), locked_by = 'pool-1'";
    database.execute(lock).await;
    let admin = Admin::open(&database.database(), RowAccess::Unlock).await.unwrap();
    let workers = admin.workers(Precision::Estimate).await.unwrap().holders;
    assert_eq!((workers[0].worker.as_str(), workers[0].jobs, workers[0].lives), ("pool-1", 1, None));
    assert_eq!(admin.job(id).await.unwrap().map(|job| job.state), Some(JobState::Running));

    let report = admin.unlock(&["pool-1", "pool-2"], LivingHosts::KeepLocks).await.unwrap();
    let jobs: Vec<(&str, i64)> = report.unlocked.iter().map(|one| (one.worker.as_str(), one.jobs)).collect();
    assert_eq!(jobs, [("pool-1", 1), ("pool-2", 0)]);
    assert!(report.kept.is_empty() && report.alive.is_empty());
    assert_eq!(admin.job(id).await.unwrap().map(|job| job.state), Some(JobState::Ready));
}
