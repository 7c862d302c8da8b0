//! Taskbay inside another program: tasks compiled into it, jobs added by it, and what it hears.

use std::{future::Future, sync::Arc, time::Duration};

use serde_json::{Value, json};
use taskbay::{
    JobContext, Options, TaskList,
    events::{Event, Events},
    library::RunningJob,
    queue::NewJob,
};
use tokio::{
    sync::{Semaphore, broadcast, mpsc},
    time::timeout,
};

use crate::harness::{postgres::TestDatabase, program::DEADLINE};

mod adding;
mod event_stream;
mod example_programs;
mod folder_tasks;
mod host_state;
mod logging;
mod queue_names;
mod run_once;
mod runner;
mod task_list;
mod task_list_once;
mod tasks;

/// Options for a test's database.
fn options(database: &TestDatabase) -> Options {
    Options::new().config(database.config())
}

/// Works what can be worked at this moment.
async fn once(database: &TestDatabase, tasks: &TaskList) {
    let run = taskbay::run_task_list_once(options(database), tasks.clone());
    within(run).await.expect("the jobs are worked");
}

/// What has to happen before the deadline.
#[track_caller]
fn within<T>(happening: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let happened = timeout(DEADLINE, happening).await;
        happened.unwrap_or_else(|_| panic!("what was waited for at {place} did not come within {DEADLINE:?}"))
    }
}

/// Tasks whose runs the test hears of, and lets go on.
struct Gate {
    started: mpsc::UnboundedReceiver<RunningJob>,
    sender: mpsc::UnboundedSender<RunningJob>,
    gate: Arc<Semaphore>,
}

impl Gate {
    fn closed() -> Self {
        let (sender, started) = mpsc::unbounded_channel();
        Self { started, sender, gate: Arc::new(Semaphore::new(0)) }
    }

    /// The runs do not wait.
    fn open() -> Self {
        let gate = Self::closed();
        gate.let_go(Semaphore::MAX_PERMITS / 2);
        gate
    }

    /// A list with this task, and more by [`Gate::and_task`].
    fn task(&self, name: &str) -> TaskList {
        self.and_task(TaskList::new(), name)
    }

    fn and_task(&self, list: TaskList, name: &str) -> TaskList {
        let (sender, gate) = (self.sender.clone(), Arc::clone(&self.gate));
        list.task(name, move |_: Value, job: JobContext| {
            let (sender, gate) = (sender.clone(), Arc::clone(&gate));
            async move {
                sender.send(job.job().clone())?;
                gate.acquire().await?.forget();
                Ok(())
            }
        })
    }

    fn let_go(&self, runs: usize) {
        self.gate.add_permits(runs);
    }

    /// The next run that has begun.
    #[track_caller]
    fn started(&mut self) -> impl Future<Output = RunningJob> {
        let next = within(self.started.recv());
        async move { next.await.expect("the sender is kept") }
    }

    /// All runs that have begun and were not asked for yet.
    fn all_started(&mut self) -> Vec<RunningJob> {
        std::iter::from_fn(|| self.started.try_recv().ok()).collect()
    }
}

/// The events of one host.
struct Heard {
    receiver: broadcast::Receiver<Event>,
    names: Vec<&'static str>,
}

impl Heard {
    fn from(events: &Events) -> Self {
        Self { receiver: events.subscribe(), names: Vec::new() }
    }

    /// Waits for an event; those before it are counted, too.
    #[track_caller]
    fn event<T>(&mut self, take: impl Fn(&Event) -> Option<T>) -> impl Future<Output = T> {
        within(async move {
            loop {
                let event = self.receiver.recv().await.expect("the test keeps up");
                self.names.push(event.name());
                if let Some(taken) = take(&event) {
                    return taken;
                }
            }
        })
    }

    #[track_caller]
    fn named(&mut self, name: &'static str) -> impl Future<Output = Event> {
        self.event(move |event| (event.name() == name).then(|| event.clone()))
    }

    /// How many events of this name have come.
    fn count(&mut self, name: &str) -> usize {
        while let Ok(event) = self.receiver.try_recv() {
            self.names.push(event.name());
        }
        self.names.iter().filter(|seen| **seen == name).count()
    }
}

fn payload(value: Value) -> NewJob {
    NewJob::with_payload("job3", &value).expect("it is JSON")
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

async fn set_due(database: &TestDatabase) {
    database.execute("update graphile_worker._private_jobs set run_at = now()").await;
}

/// A payload as upstream's tests have it.
fn a(value: &str) -> Value {
    json!({ "a": value })
}
