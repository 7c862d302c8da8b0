//! Jobs that programs add: graphile-worker's `workerUtils.addJob` and `addJobs` tests, and what goes beyond them.

use std::{
    collections::BTreeSet,
    time::{Instant, SystemTime},
};

use taskbay::{
    config::{Clock, TimeSource},
    queue::{self, AddedJob, JobKeyMode, QueueError},
};

use super::*;

const SCHEMA: &str = "graphile_worker";
const COUNT: &str = "select count(*) from graphile_worker._private_jobs";

#[tokio::test(flavor = "multi_thread")]
async fn runs_a_job_added_by_a_program() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::open();
    let job = database.database().add_job(&payload(a("1"))).await.unwrap();
    assert_eq!((job.task.as_str(), job.attempts, job.payload.as_str()), ("job3", 0, r#"{"a":"1"}"#));
    let more = database.database().add_jobs(&[payload(a("2")), payload(a("3"))]).await.unwrap();
    assert_eq!(more.len(), 2);
    once(&database, &gate.task("job3")).await;
    assert_eq!(gate.all_started().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn supports_the_job_key_api() {
    let database = TestDatabase::installed().await;
    let adding = database.database();
    for number in 0..4 {
        adding.add_job(&payload(json!(number)).key("UNIQUE")).await.unwrap();
    }
    let added = adding.add_jobs(&[payload(json!(4)).key("UNIQUE")]).await.unwrap();
    assert_eq!(added[0].revision, 4);
    assert_eq!(database.only_job().await.payload, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn supports_the_job_key_api_with_job_key_mode() {
    let database = TestDatabase::installed().await;
    let adding = database.database();
    let at = |hours: u64| SystemTime::UNIX_EPOCH + seconds(4_000_000_000 + hours * 3600);
    let modes = [JobKeyMode::Replace, JobKeyMode::PreserveRunAt, JobKeyMode::UnsafeDedupe, JobKeyMode::Replace];
    let expected = [("1", at(1)), ("2", at(1)), ("2", at(1)), ("4", at(4))];
    for (round, (mode, (payload, run_at))) in (0..).zip(modes.into_iter().zip(expected)) {
        let number = u64::try_from(round).unwrap() + 1;
        let new = NewJob::with_payload("job3", &number).unwrap().key("UNIQUE").key_mode(mode).run_at(at(number));
        let job = if round % 2 == 0 {
            adding.add_job(&new).await.unwrap()
        } else {
            adding.add_jobs(&[new]).await.unwrap().remove(0)
        };
        assert_eq!((job.revision, job.payload.as_str(), job.run_at), (round, payload, run_at), "{mode:?}");
    }
    assert_eq!("preserve_run_at".parse(), Ok(JobKeyMode::PreserveRunAt));
    assert!("merge".parse::<JobKeyMode>().unwrap_err().contains("replace, preserve_run_at and unsafe_dedupe"));
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_a_job_respects_the_clock_of_the_process() {
    let database = TestDatabase::installed().await;
    let new_year = SystemTime::UNIX_EPOCH + seconds(1_609_459_200);
    let worker = taskbay::config::WorkerSettings {
        clock: Clock::Process,
        time: TimeSource::new(move || new_year),
        ..Default::default()
    };
    let tasks = TaskList::new().task("job3", |_: Value, job: JobContext| async move {
        job.add_job(&NewJob::new("elsewhere")).await?;
        Ok(())
    });
    let pool = within(taskbay::run_task_list(options(&database).worker(worker), tasks)).await.unwrap();
    let mut heard = Heard::from(pool.events());
    let job = pool.add_job(&payload(a("1"))).await.unwrap();
    assert_eq!(job.run_at, new_year);
    heard.named("job:complete").await;
    let many = pool.add_jobs(&[NewJob::new("elsewhere"), NewJob::new("elsewhere")]).await.unwrap();
    assert!(many.iter().all(|job| job.run_at == new_year));
    let at_new_year = "select count(*) from graphile_worker._private_jobs where run_at = '2021-01-01T00:00:00Z'";
    assert_eq!(database.id_of(at_new_year, &[]).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn does_not_consume_task_identity_when_identifier_already_exists() {
    let database = TestDatabase::installed().await;
    let adding = database.database();
    let dedupe = payload(a("1")).key("k").queue("q").key_mode(JobKeyMode::UnsafeDedupe);
    for _ in 0..3 {
        adding.add_job(&payload(a("1")).queue("q")).await.unwrap();
        adding.add_jobs(&[payload(a("1")).queue("q"), payload(a("2"))]).await.unwrap();
        adding.add_job(&dedupe).await.unwrap();
        adding.session().await.unwrap().task_ids(&["job3"]).await.unwrap();
    }
    for table in ["_private_tasks", "_private_job_queues"] {
        let last = format!(
            "select last_value from pg_sequences where schemaname = 'graphile_worker' and sequencename = split_part(pg_get_serial_sequence('graphile_worker.{table}', 'id'), '.', 2)"
        );
        assert_eq!(database.id_of(&last, &[]).await, 1, "{table}");
    }
}

/// All that tells jobs apart.
fn describe(job: &AddedJob) -> (&str, &str, Option<&str>, Option<&str>, i16) {
    (&job.task, &job.job.payload, job.job.queue_name.as_deref(), job.job.key.as_deref(), job.priority)
}

/// Jobs of which neighbours differ in everything; some are equal.
fn mixed(count: usize) -> Vec<NewJob> {
    let job = |number: usize| {
        let job = NewJob::with_payload(format!("task_{}", number % 4), &(number % 10)).unwrap();
        let job = if number.is_multiple_of(3) { job.queue(format!("q{}", number % 5)) } else { job };
        let job = if number % 7 == 2 { job.key(format!("key {number}")) } else { job };
        let job = if number % 6 == 1 { job.flag("b").flag("a") } else { job };
        let job = if number % 11 == 4 { job.run_at(SystemTime::now() + Duration::from_nanos(1_500)) } else { job };
        let mode = [JobKeyMode::Replace, JobKeyMode::PreserveRunAt, JobKeyMode::UnsafeDedupe][number % 3];
        job.priority(i16::try_from(number % 3).unwrap() - 1).key_mode(mode)
    };
    (0..count).map(job).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_come_back_in_the_order_asked_for_with_their_own_tasks() {
    let database = TestDatabase::installed().await;
    let new = mixed(500);
    let added = database.database().add_jobs(&new).await.unwrap();
    assert_eq!(added.len(), new.len());
    for (new, added) in new.iter().zip(&added) {
        let asked = (&*new.identifier, new.payload.as_deref().unwrap(), new.queue_name.as_deref());
        assert_eq!(describe(added), (asked.0, asked.1, asked.2, new.job_key.as_deref(), new.priority.unwrap()));
        assert_eq!(added.flags.is_some(), !new.flags.is_empty());
        if let Some(run_at) = new.run_at {
            assert!(run_at.duration_since(added.run_at).unwrap() < Duration::from_micros(1));
        }
    }
    let ids: BTreeSet<i64> = added.iter().map(|job| job.id).collect();
    assert_eq!(ids.len(), new.len(), "each row is given once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_stays_under_its_key_comes_with_its_own_task() {
    let database = TestDatabase::installed().await;
    let adding = database.database();
    adding.add_job(&NewJob::new("old").key("k")).await.unwrap();
    let stay = NewJob::new("new").key("k").key_mode(JobKeyMode::UnsafeDedupe);
    assert_eq!(adding.add_job(&stay).await.unwrap().task, "old");
    assert_eq!(adding.add_jobs(&[NewJob::new("x"), stay]).await.unwrap()[1].task, "old");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_part_of_the_callers_own_transaction() {
    let database = TestDatabase::installed().await;
    let mut client = database.client().await;
    let transaction = client.transaction().await.unwrap();
    queue::add_job(&transaction, SCHEMA, &payload(a("1"))).await.unwrap();
    queue::add_jobs(&transaction, SCHEMA, &mixed(20)).await.unwrap();
    assert_eq!(database.id_of(COUNT, &[]).await, 0, "nobody sees them yet");
    transaction.rollback().await.unwrap();
    assert_eq!(database.id_of(COUNT, &[]).await, 0);

    let transaction = client.transaction().await.unwrap();
    let refused = queue::add_job(&transaction, SCHEMA, &NewJob::new("t").key("")).await.unwrap_err();
    assert!(refused.to_string().contains("1 to 512 characters"), "{refused}");
    let job = queue::add_job(&transaction, SCHEMA, &payload(a("2")).queue("q")).await.unwrap();
    assert_eq!((job.task.as_str(), job.queue_name.as_deref()), ("job3", Some("q")));
    transaction.commit().await.unwrap();
    assert_eq!(database.only_job().await.id, job.id, "the refusal did not cost the transaction");
}

#[tokio::test(flavor = "multi_thread")]
async fn keyed_jobs_that_a_worker_takes_in_the_same_moment_are_added_again() {
    for unread in [false, true] {
        let database = TestDatabase::installed().await;
        let adding = database.database();
        let old = adding.add_job(&NewJob::new("old").key("k")).await.unwrap();
        let worker = database.client().await;
        worker.batch_execute("begin").await.unwrap();
        let take = "update graphile_worker._private_jobs set locked_by = 'another', locked_at = now() where id = $1";
        worker.execute(take, &[&old.id]).await.unwrap();
        let new = vec![NewJob::new("other"), NewJob::new("new").key("k"), NewJob::new("other").key("free")];
        let added = tokio::spawn(async move {
            if unread {
                adding.add_jobs_unread(&new).await.map(|count| (count, Vec::new()))
            } else {
                adding.add_jobs(&new).await.map(|added| (added.len() as u64, added))
            }
        });
        // The statement has looked at the job under the key, and waits for the worker to be done with it.
        database.wait_until_blocked().await;
        worker.batch_execute("commit").await.unwrap();
        let (count, added) = within(added).await.unwrap().unwrap();
        assert_eq!(count, 3);
        if !unread {
            assert_eq!(added.iter().map(|job| job.task.as_str()).collect::<Vec<_>>(), ["other", "new", "other"]);
            assert_ne!(added[1].id, old.id);
        }
        let mut tasks: Vec<String> = database.jobs().await.into_iter().map(|job| job.task).collect();
        tasks.sort();
        assert_eq!(tasks, ["new", "old", "other", "other"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_would_refuse_is_refused_in_a_sentence_and_nothing_is_added() {
    let database = TestDatabase::installed().await;
    let adding = database.database();
    let bad = |change: fn(NewJob) -> NewJob| change(NewJob::new("t"));
    let far = SystemTime::UNIX_EPOCH.checked_add(seconds(1 << 50)).unwrap();
    for (job, part) in [
        (bad(|job| job.key("")), "a job key has 1 to 512 characters, and this one has 0"),
        (bad(|job| job.key("k".repeat(513))), "this one has 513"),
        (bad(|job| job.key("a\0")), "NUL"),
        (NewJob::new("ü".repeat(129)), "the name of a task has at most 128 characters"),
        (bad(|job| job.queue("q".repeat(129))), "the name of a queue has at most 128 characters"),
        (bad(|job| job.max_attempts(0)), "at least one attempt"),
        (bad(|job| job.flag("f\0")), "NUL"),
        (bad(|job| NewJob { payload: Some("{a: 1}".to_owned()), ..job }), "the payload is not JSON"),
        (NewJob::new("t").run_at(far), "between 4714 BC and 294276"),
    ] {
        let error = adding.add_job(&job).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(matches!(error, QueueError::BadJob { .. }) && !error.is_temporary(), "{error}");
        let error = adding.add_jobs(&[NewJob::new("fine"), job]).await.unwrap_err();
        assert!(error.to_string().contains("number 2 of 2") && error.to_string().contains(part), "{error}");
    }
    let twice = [NewJob::new("a").key("k"), NewJob::new("b"), NewJob::new("c").key("k")];
    let error = adding.add_jobs(&twice).await.unwrap_err().to_string();
    assert!(error.contains("numbers 1 and 3 of 3 have the same key \"k\""), "{error}");
    assert_eq!(database.id_of(COUNT, &[]).await, 0);
    // What is just within the limits is stored.
    let edge = NewJob::new("t".repeat(128)).key("ü".repeat(512)).queue("q".repeat(128)).max_attempts(1);
    let year_1 = SystemTime::UNIX_EPOCH - seconds(62_135_596_800);
    adding.add_jobs(&[edge, NewJob::new("t").run_at(year_1)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_lots_of_jobs_works_in_one_call() {
    const JOBS: i32 = 100_000;
    let database = TestDatabase::installed().await;
    let new: Vec<NewJob> = (0..JOBS).map(|id| payload(json!({ "id": id }))).collect();
    let adding = database.database();
    let began = Instant::now();
    let added = adding.add_jobs(&new).await.unwrap();
    let ours = began.elapsed();
    assert_eq!(added.len(), new.len());
    assert!(new.iter().zip(&added).all(|(new, added)| new.payload.as_ref() == Some(&added.payload)));
    assert_eq!(database.id_of(COUNT, &[]).await, i64::from(JOBS));

    database.execute("truncate graphile_worker._private_jobs").await;
    let bare = "select count(*) from graphile_worker.add_jobs(array(select ('job3', json_build_object('id', id), null,
                null, null, null, null, null)::graphile_worker.job_spec from generate_series(1, 100000) as id))";
    let began = Instant::now();
    assert_eq!(database.id_of(bare, &[]).await, i64::from(JOBS));
    let bare = began.elapsed();
    let rate = |took: Duration| f64::from(JOBS) / took.as_secs_f64();
    println!("added {:.0} jobs/s, the bare function {:.0} jobs/s", rate(ours), rate(bare));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_asked_for_holds_with_another_function_in_the_schema() {
    let database = TestDatabase::installed().await;
    // The schema may be of another program, whose function adds and returns the jobs in an order of its own.
    database
        .execute(
            "alter function graphile_worker.add_jobs rename to add_in_order;
             create function graphile_worker.add_jobs(specs graphile_worker.job_spec[], keep boolean default false)
             returns setof graphile_worker._private_jobs language sql volatile as $$
               select * from graphile_worker.add_in_order(
                 array(select row(s.identifier, s.payload, s.queue_name, s.run_at, s.max_attempts, s.job_key, s.priority,
                     s.flags)::graphile_worker.job_spec
                   from unnest(specs) with ordinality as s (identifier, payload, queue_name, run_at, max_attempts, job_key,
                     priority, flags, place)
                   order by s.place desc),
                 keep)
             $$",
        )
        .await;
    let alike: Vec<NewJob> = (0..100).map(|number| payload(json!(number / 2))).collect();
    for new in [alike, mixed(100)] {
        let added = database.database().add_jobs(&new).await.unwrap();
        let given: Vec<_> = added.iter().map(|job| (&*job.task, &*job.job.payload, job.key.as_deref())).collect();
        let asked = new.iter().map(|job| (&*job.identifier, job.payload.as_deref().unwrap(), job.job_key.as_deref()));
        assert_eq!(given, asked.collect::<Vec<_>>());
        assert!(added[0].id > added[90].id, "the function has reversed them");
    }
    assert_eq!(database.database().add_jobs_unread(&mixed(30)).await.unwrap(), 30);
}
