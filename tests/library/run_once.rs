//! `run_once`: graphile-worker's `runner.runOnce` tests. Those on how a database is named are beside the options themselves.

use taskbay::{TaskError, host::Control, queue::Database};

use super::*;
use crate::harness::plugins::{install_plugin, tasks_folder};

#[tokio::test(flavor = "multi_thread")]
async fn either_a_list_of_tasks_or_an_existent_tasks_folder_must_be_provided() {
    let database = TestDatabase::installed().await;
    let error = taskbay::run_once(options(&database)).await.unwrap_err().to_string();
    assert!(error.contains("nothing to run"), "{error}");
    let missing = options(&database).folder("/no/such/folder").program(env!("CARGO_BIN_EXE_taskbay"));
    let error = taskbay::run_once(missing).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/folder does not exist"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_tasks_and_a_folder_can_be_provided_at_the_same_time() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install_plugin(folder.path(), "typed-plugin");
    let mut gate = Gate::open();
    database.add("job3", a("1")).await;
    database.add("greet", json!({"to": "Ada", "times": 1})).await;
    let both = options(&database).folder(folder.path()).program(env!("CARGO_BIN_EXE_taskbay"));
    within(taskbay::run_once(both.tasks(gate.task("job3")))).await.unwrap();
    assert_eq!(gate.all_started().len(), 1);
    assert!(database.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn providing_just_a_connection_string_or_just_a_pool_is_possible() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::open();
    for options in
        [Options::new().connection(database.url()), Options::new().database(Database::clone(&database.database()))]
    {
        database.add("job3", a("1")).await;
        within(taskbay::run_once(options.tasks(gate.task("job3")))).await.unwrap();
        assert_eq!(gate.all_started().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_all_available_tasks_and_then_exits() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::open();
    for number in 0..6 {
        database.add("job3", json!(number)).await;
    }
    let future = database.add_in_an_hour("job3", a("future")).await;
    let failed = database.add("job3", a("failed")).await;
    let locked = database.add("job3", a("locked")).await;
    let set = |what: &str, id: i64| format!("update graphile_worker._private_jobs set {what} where id = {id}");
    database.execute(&set("attempts = max_attempts", failed)).await;
    database.execute(&set("locked_by = 'another', locked_at = now()", locked)).await;
    within(taskbay::run_once(options(&database).tasks(gate.task("job3")))).await.unwrap();
    assert_eq!(gate.all_started().len(), 6);
    let left: Vec<i64> = database.jobs().await.iter().map(|job| job.id).collect();
    assert_eq!(left, [future, failed, locked]);
}

#[tokio::test(flavor = "multi_thread")]
async fn graceful_shutdown_of_what_is_run_once() {
    let database = TestDatabase::installed().await;
    let (started, mut begun) = mpsc::unbounded_channel();
    let tasks = TaskList::new().task("job3", move |_: Value, job: JobContext| {
        let started = started.clone();
        async move {
            started.send(())?;
            job.cancelled().await;
            Err(TaskError::new("aborted"))
        }
    });
    let id = database.add("job3", a("1")).await;
    let control = Control::default();
    let options = options(&database).tasks(tasks).abort_timeout(Duration::from_millis(20)).control(control.clone());
    let running = tokio::spawn(taskbay::run_once(options));
    within(begun.recv()).await.unwrap();
    control.stop.graceful.cancel();
    within(running).await.unwrap().unwrap();
    assert_eq!(database.job(id).await.last_error.as_deref(), Some("aborted"));
}
