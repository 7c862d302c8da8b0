//! Jobs that were claimed for a build which no longer takes any go back as if nobody had touched them.

use std::{collections::BTreeMap, fs, future::Future, pin::Pin, sync::Arc, time::Duration};

use serde_json::json;
use taskbay::{
    config::WorkerSettings,
    events::{Event, Events},
    plugin::{AddJob, BuildId, Generation, HostServices, Image, PluginSettings},
    tasks::{LiveTaskMap, Task},
    work::{Mode, Pool, PreparedPool, Stop},
};
use tokio::time::timeout;

use crate::harness::{plugins::plugin, postgres::TestDatabase, program::DEADLINE};

#[derive(Debug)]
struct NoJobs;

impl AddJob for NoJobs {
    fn add_job(&self, _spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>> {
        Box::pin(async { Err("nobody adds jobs here".to_owned()) })
    }
}

/// The map with the task `greet` of a build that serves, or that still stands in the map although it takes no more jobs: what a job
/// meets that was claimed a moment before its plugin was removed, or crashed.
async fn tasks_of(events: &Events, serves: bool) -> BTreeMap<String, Task> {
    let bytes = fs::read(plugin("typed-plugin")).expect("read the plugin");
    let image = Image::seal("libtyped_plugin.so", BuildId([1; 32]), &bytes).expect("copy the plugin");
    let services = HostServices {
        add_job: Arc::new(NoJobs),
        events: events.clone(),
        program: env!("CARGO_BIN_EXE_taskbay").into(),
    };
    let generation = Generation::launch(Arc::new(image), &PluginSettings::default(), &services).await;
    let generation = generation.expect("start the plugin");
    if !serves {
        generation.retire().await;
    }
    let index = generation.tasks().iter().position(|task| task.name == "greet").expect("the plugin has the task");
    let index = u32::try_from(index).expect("few tasks");
    BTreeMap::from([("greet".to_owned(), Task { generation, index })])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_build_takes_no_more_goes_back_with_its_attempt_and_starts_once_on_the_next() {
    let database = TestDatabase::installed().await;
    let (events, tasks) = (Events::default(), Arc::new(LiveTaskMap::default()));
    tasks.publish(tasks_of(&events, false).await);
    let next = tasks_of(&events, true).await;
    let plain = database.add("greet", json!({"to": "Ada", "times": 1})).await;
    let mut heard = events.subscribe();
    let map = Arc::clone(&tasks);

    let stop = Stop::default();
    let settings = WorkerSettings {
        concurrency: 1,
        // Nothing but the first look claims it.
        poll_interval: Duration::from_secs(3_600),
        ..WorkerSettings::default()
    };
    let pool = Pool::new(settings, Mode::Continuous, database.database(), tasks, events, stop.clone());
    let running = tokio::spawn(PreparedPool::new(&pool).run());
    let returned = async {
        loop {
            match heard.recv().await.expect("the pool runs") {
                Event::JobReturned { id, .. } => return id,
                Event::JobStarted { job, .. } | Event::JobDone { job, .. } | Event::JobFailed { job, .. } => {
                    panic!("it ran: {job:?}")
                }
                _ => {}
            }
        }
    };
    assert_eq!(timeout(DEADLINE, returned).await.expect("the job is given back"), plain);

    let job = database.job(plain).await;
    assert_eq!((job.attempts, job.locked_by, job.last_error), (0, None, None));

    map.publish(next);
    let done = async {
        let mut starts = 0;
        loop {
            match heard.recv().await.expect("the pool runs") {
                Event::JobStarted { .. } => starts += 1,
                Event::JobDone { job, .. } => return (job.id, starts),
                _ => {}
            }
        }
    };
    assert_eq!(timeout(DEADLINE, done).await.expect("the next build runs it"), (plain, 1));
    stop.graceful.cancel();
    timeout(DEADLINE, running).await.expect("the pool stops").expect("the pool ran");
}
