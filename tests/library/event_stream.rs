//! What a program hears of its host: graphile-worker's `events` test, and the order of the events of one job.

use taskbay::TaskError;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn emits_the_expected_events() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::closed();
    for number in 0..5 {
        database.add_to_queue("job3", json!(number), "serial").await;
    }
    let events = Events::default();
    let mut heard = Heard::from(&events);
    let runner = options(&database).concurrency(3).events(events).tasks(gate.task("job3"));
    let runner = within(taskbay::run(runner)).await.unwrap();
    heard.named("pool:listen:success").await;
    for done in 1..=5 {
        gate.started().await;
        assert_eq!(heard.count("job:success"), done - 1);
        gate.let_go(1);
        heard.named("job:complete").await;
        assert_eq!((heard.count("job:success"), heard.count("job:complete")), (done, done));
    }
    assert_eq!(heard.count("stop"), 0);
    runner.stop().await.unwrap();
    for (name, times) in [
        ("pool:create", 1),
        ("pool:listen:connecting", 1),
        ("pool:listen:success", 1),
        ("worker:create", 1),
        ("job:start", 5),
        ("pool:gracefulShutdown", 1),
        ("worker:stop", 1),
        ("worker:release", 1),
        ("pool:gracefulShutdown:complete", 1),
        ("pool:release", 1),
        ("pool:listen:release", 1),
        ("stop", 1),
        ("job:error", 0),
        ("job:failed", 0),
    ] {
        assert_eq!(heard.count(name), times, "{name}: {:?}", heard.names);
    }
    assert!(database.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_one_job_come_in_their_order() {
    let database = TestDatabase::installed().await;
    let tasks = TaskList::new().task("job3", |wish: String, _| async move {
        match wish.as_str() {
            "fail" => Err(TaskError::new("no luck")),
            "discard" => Err(TaskError::discard("pointless")),
            _ => Ok(()),
        }
    });
    for (wish, ends) in
        [("work", &["job:success"][..]), ("fail", &["job:error"]), ("discard", &["job:error", "job:failed"])]
    {
        let id = database.add("job3", json!(wish)).await;
        let events = Events::default();
        let mut heard = Heard::from(&events);
        within(taskbay::run_once(options(&database).events(events).tasks(tasks.clone()))).await.unwrap();
        let completed = heard.named("job:complete").await;
        let before = |name: &&str| ["worker:getJob:start", "job:start"].contains(name) || name.starts_with("job:");
        let mut names: Vec<&str> = heard.names.iter().copied().filter(before).collect();
        // Whoever has a free slot may look again while the job runs.
        names.dedup();
        names.retain({
            let mut claims = 0;
            move |name| {
                claims += usize::from(*name == "worker:getJob:start");
                *name != "worker:getJob:start" || claims == 1
            }
        });
        let expected = ["worker:getJob:start", "job:start"].iter().chain(ends).chain(&["job:complete"]);
        assert_eq!(names, expected.copied().collect::<Vec<_>>(), "{wish}");
        let Event::JobCompleted { job, error } = completed else { panic!("{completed:?}") };
        assert_eq!((job.id, &*job.task, &*job.plugin, job.attempt), (id, "job3", "built-in", 1));
        assert!(job.worker.starts_with("taskbay-"));
        assert_eq!(error.is_some(), wish != "work");
        // When it is announced, it is stored.
        let stored = database.jobs().await.into_iter().find(|job| job.id == id);
        assert_eq!(stored.and_then(|job| job.last_error), error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_falls_behind_disturbs_nobody() {
    let database = TestDatabase::installed().await;
    let mut gate = Gate::open();
    let events = Events::default();
    let mut lazy = events.subscribe();
    let jobs: Vec<NewJob> = (0..1_000).map(|number| payload(json!(number))).collect();
    database.database().add_jobs(&jobs).await.unwrap();
    within(taskbay::run_once(options(&database).events(events).tasks(gate.task("job3")))).await.unwrap();
    assert_eq!(gate.all_started().len(), 1_000);
    assert!(matches!(lazy.try_recv(), Err(broadcast::error::TryRecvError::Lagged(_))));
}

#[test]
fn an_event_that_nobody_hears_is_not_made() {
    let events = Events::default();
    // Another test of this process may be listening to all log lines at this moment.
    let logged = tracing::level_filters::LevelFilter::current() >= tracing::Level::TRACE;
    let mut made = false;
    events.emit_if_heard(tracing::Level::TRACE, || {
        made = true;
        Event::Stopped
    });
    assert!(!made || logged);
    let mut heard = events.subscribe();
    events.emit_if_heard(tracing::Level::TRACE, || Event::Stopped);
    assert_eq!(heard.try_recv().unwrap().name(), "stop");
}
