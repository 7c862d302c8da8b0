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
use tokio::{sync::broadcast, task::JoinHandle, time::timeout};

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

/// A pool with one slot that works one job of `greet`, with nothing but retired builds at first.
struct Bench {
    database: TestDatabase,
    job: i64,
    tasks: Arc<LiveTaskMap>,
    events: Events,
    heard: broadcast::Receiver<Event>,
    stop: Stop,
    running: JoinHandle<()>,
}

impl Bench {
    async fn start() -> Self {
        let database = TestDatabase::installed().await;
        let (events, tasks) = (Events::default(), Arc::new(LiveTaskMap::default()));
        tasks.publish(tasks_of(&events, false).await);
        let job = database.add("greet", json!({"to": "Ada", "times": 1})).await;
        let (heard, stop) = (events.subscribe(), Stop::default());
        let settings = WorkerSettings {
            concurrency: 1,
            // Nothing but the first look claims it.
            poll_interval: Duration::from_secs(3_600),
            ..WorkerSettings::default()
        };
        let connection = database.database();
        let pool = Pool::new(settings, Mode::Continuous, connection, Arc::clone(&tasks), events.clone(), stop.clone());
        let running = tokio::spawn(PreparedPool::new(&pool).run());
        Self { database, job, tasks, events, heard, stop, running }
    }

    /// The next event of the job: its name.
    async fn next(&mut self) -> &'static str {
        let next = async {
            loop {
                let event = self.heard.recv().await.expect("the pool runs");
                let id = match &event {
                    Event::JobReturned { id, .. } => *id,
                    Event::JobStarted { job, .. } | Event::JobDone { job, .. } | Event::JobFailed { job, .. } => job.id,
                    _ => continue,
                };
                assert_eq!(id, self.job);
                return event.name();
            }
        };
        timeout(DEADLINE, next).await.expect("something becomes of the job")
    }

    async fn stop(self) -> TestDatabase {
        self.stop.graceful.cancel();
        timeout(DEADLINE, self.running).await.expect("the pool stops").expect("the pool ran");
        self.database
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_build_takes_no_more_goes_back_with_its_attempt() {
    let mut bench = Bench::start().await;
    assert_eq!(bench.next().await, "job:return");
    let id = bench.job;
    let job = bench.stop().await.job(id).await;
    assert_eq!((job.attempts, job.locked_by, job.last_error), (0, None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_a_build_has_refused_starts_once_on_the_next() {
    let mut bench = Bench::start().await;
    let next = tasks_of(&bench.events, true).await;
    assert_eq!(bench.next().await, "job:return");
    bench.tasks.publish(next);
    // It may have been claimed and refused once more before that.
    let mut event = bench.next().await;
    while event == "job:return" {
        event = bench.next().await;
    }
    assert_eq!((event, bench.next().await), ("job:start", "job:success"));
    bench.stop().await;
}
