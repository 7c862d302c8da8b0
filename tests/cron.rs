//! Schedules: a clock that the tests hold still, real Postgres, and other hosts beside.

use std::{
    fs,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;
use taskbay::{
    cron::{Clock, Cron, CronError, CronSources, PluginSchedule, ServedTasks},
    crontab::CronItem,
    events::{Event, Events},
};
use tempfile::TempDir;
use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::harness::{postgres::TestDatabase, program::DEADLINE};

/// A host without tasks.
#[derive(Debug)]
struct Nothing;

impl ServedTasks for Nothing {
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

// When schedules fire, whatever the clock does.
mod timing;
// What is made up for.
mod backfill;
// What is stored, once, also when the database is away or does not take it.
mod storing;
// Where schedules come from, and how they come and go.
mod sources;
// The same crontab in a Node worker.
mod node;
mod plugins;

fn at(time: &str) -> Timestamp {
    time.parse().expect("a time")
}

/// A clock that stands still until it is set.
#[derive(Debug)]
struct TestClock {
    now: watch::Sender<Timestamp>,
    /// It was set back, and the next sleep, or the one that goes on, ends early for it.
    set_back: Mutex<bool>,
}

impl TestClock {
    fn new(now: Timestamp) -> Arc<Self> {
        Arc::new(Self { now: watch::Sender::new(now), set_back: Mutex::new(false) })
    }

    fn set(&self, time: &str) {
        let time = at(time);
        *self.set_back.lock().unwrap() |= time < *self.now.borrow();
        self.now.send_replace(time);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn sleep_until(&self, time: Timestamp) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            while *now.borrow_and_update() < time && !std::mem::take(&mut *self.set_back.lock().unwrap()) {
                now.changed().await.expect("the clock lives");
            }
        })
    }
}

/// What a host's cron works with.
struct Setup {
    clock: Arc<TestClock>,
    folder: Arc<TempDir>,
    items: Vec<CronItem>,
    plugins: watch::Sender<Vec<PluginSchedule>>,
    tolerate_broken: bool,
}

impl Setup {
    fn at(now: &str) -> Self {
        Self {
            clock: TestClock::new(at(now)),
            folder: Arc::new(tempfile::tempdir().expect("a folder for the crontab")),
            items: Vec::new(),
            plugins: watch::Sender::new(Vec::new()),
            tolerate_broken: false,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("crontab")
    }

    fn crontab(self, text: &str) -> Self {
        fs::write(self.file(), text).expect("write the crontab");
        self
    }

    fn open(&self, database: &TestDatabase, events: &Events) -> Result<Cron, CronError> {
        let sources = CronSources {
            crontab: self.file(),
            items: self.items.clone(),
            plugins: self.plugins.subscribe(),
            served: Arc::new(Nothing),
        };
        Cron::open(sources, self.tolerate_broken, database.database(), self.clock.clone(), events.clone())
    }

    /// Begins, without waiting for anything.
    #[track_caller]
    fn begin(self, database: &TestDatabase) -> Host {
        let events = Events::default();
        let heard = events.subscribe();
        let cron = self.open(database, &events).expect("the schedules can be started with");
        let stop = CancellationToken::new();
        let running = tokio::spawn(cron.run(stop.clone()));
        Host { clock: self.clock.clone(), setup: self, heard, stop, running }
    }

    /// Starts, and waits until it has.
    async fn start(self, database: &TestDatabase) -> Host {
        let mut host = self.begin(database);
        host.event(|event| matches!(event, Event::CronStarted { .. })).await;
        host
    }
}

/// A host's cron at work.
struct Host {
    clock: Arc<TestClock>,
    setup: Setup,
    heard: broadcast::Receiver<Event>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Host {
    /// Waits for an event; those before it are passed over, and told.
    #[track_caller]
    fn event(&mut self, is_it: impl Fn(&Event) -> bool) -> impl Future<Output = (Event, Vec<Event>)> {
        let place = std::panic::Location::caller();
        async move {
            let mut before = Vec::new();
            let deadline = Instant::now() + DEADLINE;
            loop {
                match timeout_at(deadline, self.heard.recv()).await {
                    Ok(Ok(event)) if is_it(&event) => return (event, before),
                    Ok(Ok(event)) => before.push(event),
                    _ => panic!("what was waited for at {place} did not come; what came: {before:#?}"),
                }
            }
        }
    }

    /// Waits until the jobs of a minute are stored; tells which minutes were stored before it.
    async fn scheduled(&mut self, minute: &str) -> Vec<Timestamp> {
        let minute = at(minute);
        let is_it = |event: &Event| matches!(event, Event::CronScheduled { timestamp, .. } if *timestamp == minute);
        let (_, before) = self.event(is_it).await;
        let stored = |event: Event| match event {
            Event::CronScheduled { timestamp, .. } => Some(timestamp),
            _ => None,
        };
        before.into_iter().filter_map(stored).collect()
    }

    /// Waits until the set-back clock was noticed.
    async fn woken_early(&mut self) {
        self.event(|event| matches!(event, Event::CronPrematureTimer { .. })).await;
    }

    async fn changed(&mut self) -> (Vec<String>, Vec<String>) {
        match self.event(|event| matches!(event, Event::SchedulesChanged { .. })).await.0 {
            Event::SchedulesChanged { added, removed, .. } => (added, removed),
            other => panic!("{other:?}"),
        }
    }

    async fn stop(self) -> Setup {
        self.stop.cancel();
        timeout(DEADLINE, self.running).await.expect("it ends when told to").expect("it does not panic");
        self.setup
    }
}

/// A job that a schedule added.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Scheduled {
    id: i64,
    task: String,
    run_at: Timestamp,
    ts: String,
    backfilled: bool,
}

impl TestDatabase {
    /// The jobs, in the order of their times.
    async fn scheduled(&self) -> Vec<Scheduled> {
        let sql = "select job.id, task.identifier, job.run_at, job.payload::text
                   from graphile_worker._private_jobs job
                   join graphile_worker._private_tasks task on task.id = job.task_id
                   order by job.run_at, task.identifier, job.id";
        let rows = self.client().await.query(sql, &[]).await.expect("read the jobs");
        let job = |row: &tokio_postgres::Row| {
            let payload: Value = serde_json::from_str(row.get(3)).expect("the payload is JSON");
            Scheduled {
                id: row.get(0),
                task: row.get(1),
                run_at: row.get(2),
                ts: payload["_cron"]["ts"].as_str().expect("a time in the payload").to_owned(),
                backfilled: payload["_cron"]["backfilled"].as_bool().expect("a mark in the payload"),
            }
        };
        rows.iter().map(job).collect()
    }

    /// The minutes of a task's jobs, as hours and minutes.
    async fn minutes_of(&self, task: &str) -> Vec<String> {
        let jobs = self.scheduled().await.into_iter().filter(|job| job.task == task);
        jobs.map(|job| job.run_at.strftime("%H:%M").to_string()).collect()
    }

    /// What is known of a schedule.
    async fn known(&self, identifier: &str) -> Option<(Timestamp, Option<Timestamp>)> {
        let sql =
            "select known_since, last_execution from graphile_worker._private_known_crontabs where identifier = $1";
        let row = self.client().await.query_opt(sql, &[&identifier]).await.expect("read a schedule");
        row.map(|row| (row.get(0), row.get(1)))
    }

    async fn make_known(&self, identifier: &str, since: &str, last: Option<&str>) {
        let sql = "insert into graphile_worker._private_known_crontabs values ($1, $2, $3)";
        let last = last.map(at);
        self.client().await.execute(sql, &[&identifier, &at(since), &last]).await.expect("enter a schedule");
    }

    /// Takes the database away from everybody, or gives it back.
    async fn set_away(&self, away: bool) {
        let admin = TestDatabase::new().await;
        let name = self.config().get_dbname().expect("a name").to_owned();
        admin.execute(&format!("alter database {name} with allow_connections {}", !away)).await;
        if away {
            let kick = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
            admin.execute(&kick).await;
        }
    }
}

/// Waits until something is so, where nothing tells of it.
#[track_caller]
fn eventually<F: Future<Output = bool>>(is_so: impl FnMut() -> F) -> impl Future<Output = ()> {
    eventually_within(DEADLINE, is_so)
}

#[track_caller]
fn eventually_within<F: Future<Output = bool>>(
    limit: Duration,
    mut is_so: impl FnMut() -> F,
) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let looks = async {
            while !is_so().await {
                // A row tells nobody that it came.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(limit, looks).await.unwrap_or_else(|_| panic!("what was waited for at {place} did not come"));
    }
}
