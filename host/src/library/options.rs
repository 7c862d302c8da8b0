//! What a program says of the host that it wants.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_postgres::Config;

use super::TaskList;
use crate::{
    config::{
        Claim, Clock, CronSettings, FolderSettings, ForbiddenFlags, Layer, LocalQueue, PluginLookup, Purpose,
        WorkerSettings,
    },
    crontab::CronItem,
    events::Events,
    host::Control,
    queue::Database,
};

/// The options of [`run`](crate::run) and its neighbours. What is not said has the defaults of `taskbay run`.
///
/// ```no_run
/// use std::time::Duration;
/// use taskbay::{JobContext, Options, TaskList};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let tasks = TaskList::new().task("hello", |name: String, _: JobContext| async move {
///     println!("hello, {name}");
///     Ok(())
/// });
/// let options = Options::new()
///     .connection("postgres://localhost/app")
///     .tasks(tasks)
///     .concurrency(20)
///     .poll_interval(Duration::from_secs(5))
///     .handle_signals();
/// taskbay::run(options).await?.wait().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Options {
    pub(super) connection: Option<String>,
    pub(super) config: Option<Config>,
    pub(super) database: Option<Database>,
    pub(super) layer: Layer,
    pub(super) tasks: TaskList,
    pub(super) folder: Option<PathBuf>,
    pub(super) folder_settings: Option<FolderSettings>,
    pub(super) purpose: Purpose,
    pub(super) worker: WorkerSettings,
    pub(super) cron: CronSettings,
    pub(super) plugins: PluginLookup,
    pub(super) program: Option<PathBuf>,
    pub(super) events: Events,
    pub(super) control: Control,
    pub(super) handle_signals: bool,
}

impl Options {
    /// The database of the environment (`DATABASE_URL` or `PG*`), and no tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// The database, as `postgres://user:password@host:port/database`. The `PG*` variables fill in what it leaves open.
    pub fn connection(self, url: impl Into<String>) -> Self {
        Self { connection: Some(url.into()), ..self }
    }

    /// The database, as the driver describes it.
    pub fn config(self, config: Config) -> Self {
        Self { config: Some(config), ..self }
    }

    /// The database, with its pool of connections, which may be shared with others.
    pub fn database(self, database: Database) -> Self {
        Self { database: Some(database), ..self }
    }

    /// The schema; without, that of the environment (`GRAPHILE_WORKER_SCHEMA`), or else `graphile_worker`.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.layer.schema = Some(schema.into());
        self
    }

    /// The most connections of the pool, 10 without. One more is used for notifications.
    pub fn max_pool_size(mut self, connections: usize) -> Self {
        self.layer.max_pool_size = Some(connections);
        self
    }

    /// Whether statements are prepared once per connection, as they are without this.
    pub fn prepared_statements(mut self, prepared: bool) -> Self {
        self.layer.prepared_statements = Some(prepared);
        self
    }

    /// The tasks that are compiled into this program. Where a plugin of the folder has one of the same name, these are run,
    /// whichever came first, and a warning says so.
    pub fn tasks(self, tasks: TaskList) -> Self {
        Self { tasks, ..self }
    }

    /// A folder with plugins, which are loaded, and replaced when their files change. See [`plugin_child`](crate::plugin_child).
    pub fn folder(self, folder: impl AsRef<Path>) -> Self {
        Self { folder: Some(folder.as_ref().to_owned()), ..self }
    }

    /// How the folder is watched, in every detail.
    pub fn folder_settings(self, settings: FolderSettings) -> Self {
        Self { folder: Some(settings.path.clone()), folder_settings: Some(settings), ..self }
    }

    /// Whether the folder is watched for production, as without this, or for development.
    pub fn purpose(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// How plugins run. The defaults in it also hold for the tasks of this program.
    pub fn plugins(self, plugins: PluginLookup) -> Self {
        Self { plugins, ..self }
    }

    /// The program that plugins run in, when called with the argument `plugin-child`; this one without.
    pub fn program(self, program: impl Into<PathBuf>) -> Self {
        Self { program: Some(program.into()), ..self }
    }

    /// How many jobs run at once, 50 without.
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.worker.concurrency = jobs;
        self
    }

    /// How often to look for jobs that no notification told of, every 2 seconds without.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.worker.poll_interval = interval;
        self
    }

    /// How long running jobs go on after a stop before they are asked to end, 5 seconds without.
    pub fn abort_timeout(mut self, patience: Duration) -> Self {
        self.worker.abort_timeout = patience;
        self
    }

    /// How long they go on in all before they are cancelled and given back, as long as they need without.
    pub fn stop_timeout(mut self, patience: Duration) -> Self {
        self.worker.stop_timeout = Some(patience);
        self
    }

    /// Jobs with any of these flags are left to others.
    pub fn forbidden_flags(mut self, flags: impl Into<ForbiddenFlags>) -> Self {
        self.worker.forbidden_flags = flags.into();
        self
    }

    /// Whether to hear of new jobs by notifications, as without this; else they are found by polling alone.
    pub fn listen(mut self, listen: bool) -> Self {
        self.worker.listen = listen;
        self
    }

    /// Whether other hosts can see that this one lives, and run its jobs within seconds if it dies, as without this; else the
    /// jobs wait for 4 hours. Takes one more connection, and does not work through a pooler that gives each transaction another
    /// one.
    pub fn liveness(mut self, liveness: bool) -> Self {
        self.worker.liveness = liveness;
        self
    }

    /// After so many crashes in a row, 3 without this, a job is not tried again, if it was alone in its process in the last one.
    /// The tasks of a program itself have no other process, so that their jobs just use up their attempts.
    pub fn max_crashes(mut self, crashes: usize) -> Self {
        self.worker.max_crashes = crashes;
        self
    }

    /// Whose clock says which jobs are due, and when jobs are that are added without a time: the database's without.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.worker.clock = clock;
        self
    }

    /// How jobs are claimed: short ones by the express lane without.
    pub fn claim(mut self, claim: Claim) -> Self {
        self.worker.claim = claim;
        self
    }

    /// How many jobs are claimed ahead: as many as are done within 100 ms without.
    pub fn local_queue(mut self, queue: LocalQueue) -> Self {
        self.worker.local_queue = Some(queue);
        self
    }

    /// The shortest and the longest time between two looks for locks that nobody lifted, 8 and 10 minutes without.
    pub fn reset_locked(mut self, shortest: Duration, longest: Duration) -> Self {
        self.worker.reset_locked = (shortest, longest);
        self
    }

    /// How jobs are worked, in every detail. It replaces what the options for single details have said.
    pub fn worker(self, worker: WorkerSettings) -> Self {
        Self { worker, ..self }
    }

    /// A crontab that [`run`](crate::run) follows while it runs: it may change, go and come. Without this, there is none.
    pub fn crontab(mut self, file: impl Into<PathBuf>) -> Self {
        self.cron.crontab = file.into();
        self
    }

    /// Schedules for [`run`](crate::run), beside those that tasks declare.
    pub fn cron_items(mut self, items: Vec<CronItem>) -> Self {
        self.cron.items = items;
        self
    }

    /// Where events are announced: for those who subscribe before the start, or want several hosts' events in one place.
    pub fn events(self, events: Events) -> Self {
        Self { events, ..self }
    }

    /// The signals that end the host, for those who have them already. Dropping the host's handle fires the first of them, too.
    pub fn control(self, control: Control) -> Self {
        Self { control, ..self }
    }

    /// Stop gracefully at the first SIGTERM or SIGINT, and at once at the second. Without this, signals are the program's
    /// own affair.
    pub fn handle_signals(self) -> Self {
        Self { handle_signals: true, ..self }
    }
}
