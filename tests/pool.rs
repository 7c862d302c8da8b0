//! What a pool leaves to others, by which clock it goes, and how it looks after locks.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use taskbay::{
    config::WorkerSettings,
    events::{Event, Events},
    plugin::{AddJob, BuildId, Generation, HostServices, Image, PluginSettings},
    tasks::{LiveTaskMap, Task},
    work::{Mode, Pool, PreparedPool, Stop},
};
use tokio::{sync::broadcast, task::JoinHandle, time::timeout};

use crate::harness::{plugins::plugin, postgres::TestDatabase, program::DEADLINE};

mod ahead;
mod behind;
mod clock;
mod connections;
mod forbidden_flags;
mod locks;
mod revisions;
mod schemas;
mod task_numbers;

#[derive(Debug)]
struct NoJobs;

impl AddJob for NoJobs {
    fn add_job(&self, _spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>> {
        Box::pin(async { Err("nobody adds jobs here".to_owned()) })
    }
}

/// A running pool with the tasks of `misbehaving`.
struct Bench {
    heard: broadcast::Receiver<Event>,
    stop: Stop,
    running: JoinHandle<()>,
    pool: Arc<Pool>,
    // Held, so that the plugin lives.
    _tasks: Arc<LiveTaskMap>,
}

impl Bench {
    async fn start(database: &TestDatabase, mode: Mode, settings: WorkerSettings) -> Self {
        let (events, tasks) = (Events::default(), Arc::new(LiveTaskMap::default()));
        let generation = launch(&events).await;
        let indexes = (0_u32..).zip(generation.tasks());
        let map = indexes.map(|(index, task)| (task.name.clone(), Task { generation: Arc::clone(&generation), index }));
        tasks.publish(BTreeMap::from_iter(map));
        let (heard, stop) = (events.subscribe(), Stop::default());
        let pool = Pool::new(settings, mode, database.database(), Arc::clone(&tasks), events, stop.clone());
        let running = tokio::spawn(PreparedPool::new(&pool).run());
        Self { heard, stop, running, pool, _tasks: tasks }
    }

    /// Works what can be worked at this moment.
    async fn once(database: &TestDatabase, settings: WorkerSettings) {
        let bench = Self::start(database, Mode::Once, settings).await;
        timeout(DEADLINE, bench.running).await.expect("the pool ends").expect("the pool ran");
    }

    /// The next event that `take` wants.
    #[track_caller]
    fn event<T>(&mut self, take: impl Fn(Event) -> Option<T>) -> impl Future<Output = T> {
        let place = std::panic::Location::caller();
        async move {
            let found = async {
                loop {
                    if let Some(found) = take(self.heard.recv().await.expect("the pool runs")) {
                        return found;
                    }
                }
            };
            timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("what was waited for at {place} did not come"))
        }
    }

    async fn stop(self) {
        self.stop.graceful.cancel();
        timeout(DEADLINE, self.running).await.expect("the pool stops").expect("the pool ran");
    }
}

async fn launch(events: &Events) -> Arc<Generation> {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| fs::read(plugin("misbehaving")).expect("read the plugin"));
    let image = Image::seal("libmisbehaving.so", BuildId([1; 32]), bytes).expect("copy the plugin");
    let services = HostServices {
        add_job: Arc::new(NoJobs),
        events: events.clone(),
        program: env!("CARGO_BIN_EXE_taskbay").into(),
    };
    Generation::launch(Arc::new(image), &PluginSettings::default(), &services).await.expect("start the plugin")
}

/// A pool that looks for jobs again and again.
fn polling() -> WorkerSettings {
    WorkerSettings { poll_interval: Duration::from_millis(20), ..WorkerSettings::default() }
}
