//! Both runners: the same promises, tested on each, and what only a process of its own can promise.

use std::{
    collections::HashMap,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use taskbay::{
    events::{Event, Events},
    plugin::{
        AddJob, Availability, BuildId, Cancel, FailedItem, FailedItems, FailureKind, Generation, HostServices, Image,
        Isolation, JobInput, LaunchError, Outcome, PluginSettings, probe,
    },
};
use tokio::{sync::broadcast, time::timeout};

use crate::harness::{
    plugins::{plugin, plugins_are_built},
    program::DEADLINE,
};

mod crashes;
mod logs;
mod same_on_both;
mod start;
mod typed;

/// A test of this program in a process of its own.
fn own_process(test: &str) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(std::env::current_exe().expect("this program"));
    command.args(["--ignored", "--exact", "--nocapture", test]).envs(plugins_are_built()).kill_on_drop(true);
    command
}

/// The bytes of the plugin that keeps to no rule.
fn raw_plugin() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| std::fs::read(plugin("raw-plugin")).expect("read the compiled plugin"))
}

/// A build that differs from every other. `constructor` and `start_up` are what `tests/raw-plugin` can be told to do.
fn image_with(constructor: &str, start_up: &str) -> Arc<Image> {
    let mut bytes = raw_plugin().to_vec();
    for (place, value) in [("RAW-CONSTRUCTOR=", constructor), ("RAW-START-UP=", start_up)] {
        let at =
            bytes.windows(place.len()).position(|window| window == place.as_bytes()).expect("the place to write to");
        bytes[at + place.len()..at + 24].fill(b'.');
        bytes[at + place.len()..][..value.len()].copy_from_slice(value.as_bytes());
    }
    seal(&bytes)
}

fn seal(bytes: &[u8]) -> Arc<Image> {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let mut build = [0; 32];
    build[..8].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    Arc::new(Image::seal("libraw.so", BuildId(build), bytes).unwrap())
}

fn image() -> Arc<Image> {
    image_with("nothing", "succeed")
}

/// Counts the jobs that plugins add, and refuses the one that is called `refused`.
#[derive(Debug, Default)]
struct Jobs(Mutex<Vec<String>>);

impl AddJob for Jobs {
    fn add_job(&self, spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>> {
        Box::pin(async move {
            if spec.contains("refused") {
                return Err("the database said no".to_owned());
            }
            let mut jobs = self.0.lock().unwrap();
            jobs.push(spec);
            Ok(100 + jobs.len() as i64)
        })
    }

    fn add_jobs(&self, specs: String) -> Pin<Box<dyn Future<Output = Result<Vec<i64>, String>> + Send + '_>> {
        Box::pin(async move {
            let specs: Vec<serde_json::Value> = serde_json::from_str(&specs).map_err(|error| error.to_string())?;
            let mut ids = Vec::new();
            for spec in specs {
                ids.push(self.add_job(spec.to_string()).await?);
            }
            Ok(ids)
        })
    }
}

/// A generation under test with what it says and asks.
struct Plugin {
    generation: Arc<Generation>,
    events: broadcast::Receiver<Event>,
    jobs: Arc<Jobs>,
}

fn services() -> (HostServices, Arc<Jobs>) {
    let jobs = Arc::new(Jobs::default());
    let services = HostServices {
        add_job: Arc::clone(&jobs) as _,
        events: Events::default(),
        program: env!("CARGO_BIN_EXE_taskbay").into(),
    };
    (services, jobs)
}

fn settings(isolation: Isolation) -> PluginSettings {
    let (cancel_grace, start_timeout) = (Duration::from_secs(1), DEADLINE);
    PluginSettings { isolation, cancel_grace, start_timeout, ..PluginSettings::default() }
}

impl Plugin {
    async fn launch(isolation: Isolation) -> Self {
        Self::launch_with(image(), &settings(isolation)).await
    }

    async fn launch_with(image: Arc<Image>, settings: &PluginSettings) -> Self {
        let (services, jobs) = services();
        let events = services.events.subscribe();
        let generation = Generation::launch(image, settings, &services).await.expect("it launches");
        Self { generation, events, jobs }
    }

    fn index(&self, task: &str) -> u32 {
        self.generation.tasks().iter().position(|spec| spec.name == task).expect("the task exists") as u32
    }

    async fn run(&self, task: &str, payload: &str) -> Outcome {
        self.run_until(task, payload, &Cancel::default()).await
    }

    /// Runs a job that has to end, whatever happens.
    async fn run_until(&self, task: &str, payload: &str, cancel: &Cancel) -> Outcome {
        soon(self.generation.run(self.index(task), &job(payload), cancel)).await
    }

    /// Runs a job in the background and returns when the plugin says that it waits.
    async fn begin(&self, task: &'static str, cancel: &Cancel) -> tokio::task::JoinHandle<Outcome> {
        static ID: AtomicU64 = AtomicU64::new(1_000_000);
        let id = ID.fetch_add(1, Ordering::Relaxed) as i64;
        let waiting = logs::wait_for(move |line| line.job == Some(id) && line.message == "waiting");
        let (generation, index, cancel) = (Arc::clone(&self.generation), self.index(task), cancel.clone());
        let running = tokio::spawn(async move { generation.run(index, &JobInput { id, ..job("{}") }, &cancel).await });
        soon(waiting).await;
        running
    }

    async fn serving(&self) {
        let mut availability = self.generation.availability();
        soon(availability.wait_for(|now| *now == Availability::Serving)).await.unwrap();
    }

    /// The first event that `pick` takes.
    async fn event<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        soon(async {
            loop {
                if let Some(picked) = pick(self.events.recv().await.expect("events go on")) {
                    return picked;
                }
            }
        })
        .await
    }
}

fn job(payload: &str) -> JobInput<'_> {
    JobInput {
        id: 42,
        task: "",
        attempt: 1,
        max_attempts: 25,
        priority: 0,
        revision: 0,
        run_at_us: 1,
        created_at_us: 2,
        updated_at_us: 3,
        payload,
        queue: None,
        key: None,
        last_error: None,
        flags: None,
    }
}

fn failed(kind: FailureKind, message: &str) -> Outcome {
    Outcome::Failed { kind, message: message.to_owned() }
}

/// The message of a failure of this kind.
#[track_caller]
fn message(outcome: Outcome, expected: FailureKind) -> String {
    match outcome {
        Outcome::Failed { kind, message } if kind == expected => message,
        other => panic!("expected a failure of kind {expected:?}, but it was {other:?}"),
    }
}

#[track_caller]
fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move { timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("what was waited for at {place} did not come")) }
}
