//! Tasks that are compiled into a program: what they get, and how they end.

use taskbay::{TaskDefinition, TaskError};

use super::*;
use crate::harness::plugins::{install_plugin, tasks_folder};

#[derive(Debug, serde::Deserialize)]
struct SendEmail {
    to: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_gets_its_payload_as_its_own_type_and_the_whole_job() {
    let database = TestDatabase::installed().await;
    let (sender, mut seen) = mpsc::unbounded_channel();
    let tasks = TaskList::new().task("send_email", move |mail: SendEmail, job: JobContext| {
        let sender = sender.clone();
        async move { Ok(sender.send((mail.to, job))?) }
    });
    let new = NewJob::with_payload("send_email", &json!({"to": "ada"})).unwrap().queue("mail").key("k");
    let added = database.database().add_job(&new.priority(-3).max_attempts(7).flag("f")).await.unwrap();
    once(&database, &tasks).await;
    let (to, context) = within(seen.recv()).await.unwrap();
    let job = context.job();
    assert_eq!(
        (to.as_str(), context.id(), context.attempt(), context.queue_name()),
        ("ada", added.id, 1, Some("mail"))
    );
    assert_eq!((job.task.as_str(), job.payload.as_str()), ("send_email", r#"{"to":"ada"}"#));
    assert_eq!((job.priority, job.max_attempts, job.key.as_deref()), (-3, 7, Some("k")));
    assert_eq!((job.run_at, job.created_at, job.revision), (added.run_at, added.created_at, 0));
    assert_eq!((job.flags.as_deref(), job.last_error.as_deref()), (Some(r#"{"f": true}"#), None));
    assert!(job.locked_by.starts_with("taskbay-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_fail_leaves_its_reason_with_the_job() {
    let database = TestDatabase::installed().await;
    let tasks = TaskList::new()
        .task("chain", |_: Value, _| async {
            std::fs::read("/no/such/file").map_err(|error| std::io::Error::other(Reading(error)))?;
            Ok(())
        })
        .task("text", |_: Value, _| async { Err("only a text")? })
        .task("discard", |_: Value, _| async { Err(TaskError::discard("pointless")) })
        .task("panic", |_: Value, _| async { panic!("oh no") })
        .task("typed", |_: SendEmail, _| async { Ok(()) });
    for (task, error, for_good) in [
        ("chain", "reading: No such file or directory (os error 2)", false),
        ("text", "only a text", false),
        ("discard", "pointless", true),
        ("panic", "panicked: oh no", false),
        ("typed", "the payload does not fit the task: missing field `to`", false),
    ] {
        let id = database.add(task, json!({})).await;
        once(&database, &tasks).await;
        let job = database.job(id).await;
        assert!(job.last_error.as_deref().unwrap().starts_with(error), "{job:?}");
        assert_eq!(job.attempts, if for_good { job.max_attempts } else { 1 }, "{task}");
    }
}

#[derive(Debug, thiserror::Error)]
#[error("reading")]
struct Reading(#[source] std::io::Error);

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_its_job_and_nothing_else() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::open();
    let tasks = gate.and_task(TaskList::new().task("panic", |_: Value, _| async { panic!("oh no") }), "job3");
    let pool = within(taskbay::run_task_list(options(&database).concurrency(1), tasks)).await.unwrap();
    for task in ["panic", "job3", "panic", "job3"] {
        database.add(task, json!({})).await;
    }
    for _ in 0..2 {
        gate.started().await;
    }
    pool.graceful_shutdown();
    within(pool.wait()).await.unwrap();
    assert_eq!(database.jobs().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_has_the_time_and_the_attempts_that_are_declared_of_it() {
    let database = TestDatabase::installed().await;
    let forever = |_: Value, _: JobContext| std::future::pending();
    let limited = TaskDefinition::new("limited", forever).timeout(Duration::from_millis(20)).max_attempts(1);
    let id = database.add("limited", json!({})).await;
    once(&database, &TaskList::new().with(limited)).await;
    let job = database.job(id).await;
    assert_eq!(job.last_error.as_deref(), Some("did not finish within 20ms"));
    assert_eq!(job.attempts, job.max_attempts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_adds_jobs_and_uses_the_hosts_connections() {
    let database = TestDatabase::installed().await;
    database.execute("create table notes (text text)").await;
    let tasks = TaskList::new().task("job3", |_: Value, job: JobContext| async move {
        let id = job.add_job(&NewJob::new("next")).await?.id;
        let more = job.add_jobs(&[NewJob::new("next"), NewJob::new("next")]).await?;
        job.query("insert into notes values ($1)", &[&"one statement"]).await?;
        let mut client = job.client().await?;
        let transaction = client.transaction().await?;
        transaction.execute("insert into notes values ('in a transaction')", &[]).await?;
        transaction.commit().await?;
        if more.iter().all(|job| job.id > id) { Ok(()) } else { Err(TaskError::new("ids go backwards")) }
    });
    let failed = database.add("job3", json!({})).await;
    once(&database, &tasks).await;
    assert!(database.jobs().await.iter().all(|job| job.id != failed && job.task == "next"));
    assert_eq!(database.jobs().await.len(), 3);
    assert_eq!(database.id_of("select count(*) from notes", &[]).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tasks_own_statements_keep_the_limits_of_the_role() {
    let database = TestDatabase::installed().await;
    let name = database.config().get_dbname().expect("a name").to_owned();
    database.execute(&format!("alter database {name} set statement_timeout = '77s'")).await;
    let tasks = TaskList::new().task("job3", |_: Value, job: JobContext| async move {
        // The host uses the same connections.
        job.add_job(&NewJob::new("next")).await?;
        let rows = job.query("select current_setting('statement_timeout')", &[]).await?;
        job.add_job(&NewJob::new("next")).await?;
        if rows[0].get::<_, &str>(0) == "77s" { Ok(()) } else { Err(TaskError::new(format!("{rows:?}"))) }
    });
    let id = database.add("job3", json!({})).await;
    once(&database, &tasks).await;
    assert!(database.jobs().await.iter().all(|job| job.id != id), "{:?}", database.jobs().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_the_program_goes_before_one_of_the_folder_and_that_is_said() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "typed-plugin");
    let mut gate = Gate::open();
    let events = Events::default();
    let mut heard = Heard::from(&events);
    let both = options(&database).folder(folder.path()).program(env!("CARGO_BIN_EXE_taskbay")).events(events);
    let runner = within(taskbay::run(both.tasks(gate.task("greet")))).await.unwrap();
    let Event::TasksHidden { file, tasks, .. } = heard.named("plugin:tasksHidden").await else { unreachable!() };
    assert_eq!((file.as_str(), tasks), ("libtyped_plugin.so", vec!["greet".to_owned()]));
    runner.add_job(&NewJob::with_payload("greet", &json!({"to": "Ada", "times": 1})).unwrap()).await.unwrap();
    assert_eq!(gate.started().await.task, "greet");
    within(runner.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_be_are_refused_at_the_start() {
    let database = TestDatabase::installed().await;
    let tasks = Gate::open().task("two words");
    let error = taskbay::run_task_list(options(&database), tasks).await.unwrap_err().to_string();
    assert!(error.contains("the list of tasks declares the task \"two words\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_array_only_the_items_that_failed_are_tried_again() {
    let database = TestDatabase::installed().await;
    let tasks = TaskList::new().task("batch", |items: Vec<String>, _| async move {
        let work = |item: String| match item.as_str() {
            "fail" => Err(TaskError::new("no luck")),
            "discard" => Err(TaskError::discard("pointless")),
            _ => Ok(()),
        };
        TaskError::of_items(items.into_iter().map(work).collect())
    });
    let some = database.add("batch", json!(["work", "fail", "discard", "work"])).await;
    let none = database.add("batch", json!(["discard"])).await;
    database.add("batch", json!(["work"])).await;
    once(&database, &tasks).await;
    let job = database.job(some).await;
    assert_eq!((job.payload.as_str(), job.attempts), (r#"["fail"]"#, 1));
    let error = "2 of 4 items failed:\nitem 1: no luck\nitem 2 (for good): pointless";
    assert_eq!(job.last_error.as_deref(), Some(error));
    let job = database.job(none).await;
    assert_eq!((job.payload.as_str(), job.attempts), (r#"["discard"]"#, job.max_attempts));
    assert_eq!(database.jobs().await.len(), 2);
}
