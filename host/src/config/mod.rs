//! One validated set of settings: flag, then environment, then `taskbay.toml`, then default.

mod conditions;
mod connection;
mod contradictions;
mod effective;
mod environment;
mod example;
mod file;
#[cfg(fuzzing)]
pub mod fuzzed;
mod layer;
mod live;
mod plugin_lookup;
mod plugin_table;
mod section;
mod setting;
mod table;
mod trusted_key;
mod units;
mod value;
mod worker_table;

use std::{path::PathBuf, time::Duration};

pub use conditions::{Ask, ForbiddenFlags, TimeSource};
pub use connection::{ConnectionError, ConnectionString, ConnectionStringError, database_settings, is_configured};
pub use contradictions::{Contradiction, check};
pub use effective::{EffectiveSetting, effective_settings};
pub use environment::{WrongVariable, unknown_variables};
pub(crate) use example::default_value;
pub use example::{example_file, markdown_table};
pub use file::{FileError, read_file};
pub use layer::{Layer, PluginLayer};
pub use live::{Changes, LiveSettings, PluginChange, changes};
pub use plugin_lookup::PluginLookup;
pub use plugin_table::PLUGIN_SETTINGS;
pub use section::{WrongSetting, nearest};
pub use setting::{Flag, FlagValue, HostSetting, Origin, PluginSetting, Setting, Variable};
pub use table::{SECTIONS, SETTINGS};
pub(crate) use trusted_key::public_key;
pub use units::{parse_duration, parse_milliseconds, parse_size};
pub use value::{Kind, Value};

use crate::{crontab::CronItem, queue::DatabaseSettings};

/// Everything that `taskbay run` goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    pub database: DatabaseSettings,
    pub folder: FolderSettings,
    pub worker: WorkerSettings,
    pub cron: CronSettings,
    pub log: LogSettings,
    pub plugins: PluginLookup,
    /// The program that runs isolated plugins when called as `taskbay plugin-child`.
    pub program: PathBuf,
}

/// How the tasks folder is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderSettings {
    /// The folder.
    pub path: PathBuf,
    /// This program builds what lies in it, so that nobody has to be told to put something there.
    pub filled_by_builds: bool,
    /// A broken file at the start is a log line (development) instead of the end.
    pub tolerate_broken_start: bool,
    /// How long no event may come before the folder is listed.
    pub settle: Duration,
    /// The longest that events may put the listing off.
    pub settle_cap: Duration,
    /// The folder is listed at least this often, whatever the events say.
    pub rescan: Duration,
    /// How long the folder may be missing before its tasks are given up; `None`: they serve for ever.
    pub missing_grace: Option<Duration>,
    /// Whether a folder or file that others may write to is refused (or else only warned of).
    pub strict_permissions: bool,
    /// A file as `sha256sum` writes it, which lists what may be loaded; `None`: all may.
    pub manifest: Option<PathBuf>,
    /// Public keys of minisign. If there are any, only what one of them has signed is loaded.
    pub trusted_keys: Vec<String>,
}

/// How jobs are worked.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// How many jobs run at once, over all plugins.
    pub concurrency: usize,
    /// How often to look for jobs that no notification told of.
    pub poll_interval: Duration,
    /// How long running jobs go on after a stop signal before they are told of it.
    pub abort_timeout: Duration,
    /// How long they go on in all before they are cancelled and given back.
    pub stop_timeout: Option<Duration>,
    /// Jobs with any of these flags are left to others.
    pub forbidden_flags: ForbiddenFlags,
    /// Whether to hear of new jobs by notifications; without, they are found by polling alone.
    pub listen: bool,
    /// Whether others can see that this host lives, and take over its jobs when it does not any more.
    pub liveness: bool,
    /// After so many crashes in a row a job is not tried again, if it was alone in its process in the last one.
    pub max_crashes: usize,
    /// Whose clock says which jobs are due.
    pub clock: Clock,
    /// How jobs are claimed.
    pub claim: Claim,
    /// How many are claimed ahead, instead of as many as are done within 100 ms.
    pub local_queue: Option<LocalQueue>,
    /// How long a marked job that is done waits for others, to be stored together.
    pub complete_job_batch_delay: Duration,
    /// The same for one that failed.
    pub fail_job_batch_delay: Duration,
    /// The shortest and the longest time between two looks for locks that nobody lifted.
    pub reset_locked: (Duration, Duration),
    /// How often the locks of jobs that run long are renewed. Less than the 4 hours after which others take them.
    pub refresh_locked: Duration,
    /// What [`Clock::Process`] goes by.
    pub time: TimeSource,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            concurrency: 50,
            poll_interval: Duration::from_secs(2),
            abort_timeout: Duration::from_secs(5),
            stop_timeout: None,
            forbidden_flags: ForbiddenFlags::default(),
            listen: true,
            liveness: true,
            max_crashes: 3,
            clock: Clock::Database,
            claim: Claim::Express,
            local_queue: None,
            complete_job_batch_delay: Duration::ZERO,
            fail_job_batch_delay: Duration::ZERO,
            reset_locked: (Duration::from_secs(8 * 60), Duration::from_secs(10 * 60)),
            refresh_locked: Duration::from_secs(30 * 60),
            time: TimeSource::default(),
        }
    }
}

/// Whose clock says what the time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// The database server's: the same for all hosts.
    #[default]
    Database,
    /// This process's, as `useNodeTime` of graphile-worker.
    Process,
}

/// How jobs are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Claim {
    /// Short jobs without key and queue are locked, worked and deleted in one short transaction; all others are marked.
    #[default]
    Express,
    /// All are marked by one statement and deleted by a later one, as graphile-worker does it.
    Marked,
}

/// Jobs that are claimed ahead by number, as graphile-worker's `localQueue` does it. All of them are marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalQueue {
    /// How many are claimed at once when none waits for a slot any more; at most 1,000.
    pub size: usize,
    /// How long one may wait before it is given back.
    pub ttl: Duration,
    /// When to wait after a claim.
    pub refetch: Option<Refetch>,
}

impl LocalQueue {
    /// How long a job may wait unless something else is said.
    pub const TTL: Duration = Duration::from_secs(5 * 60);
}

/// After a claim that brought few jobs, the next one comes later, with more of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refetch {
    /// How much later, give or take a half.
    pub delay: Duration,
    /// Up to how many are few.
    pub threshold: usize,
    /// How many new jobs at most may be heard of before the wait ends; the number that does end it is found by chance.
    pub max_abort_threshold: usize,
}

impl WorkerSettings {
    /// When to wait after a claim, if ever.
    pub fn refetch(&self) -> Option<&Refetch> {
        self.local_queue.as_ref()?.refetch.as_ref()
    }
}

/// Which schedules add jobs, beside those that plugins declare.
#[derive(Debug, Clone, Default)]
pub struct CronSettings {
    /// A file with lines as in a crontab; it need not exist. Empty: no file.
    pub crontab: PathBuf,
    /// Schedules of the program that runs this host.
    pub items: Vec<CronItem>,
}

/// What the log looks like, and how much of it there is.
#[derive(Debug, Clone)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A level, or directives as in `RUST_LOG`; `None`: what suits the command.
    pub filter: Option<String>,
    /// Whether jobs that are done are logged, where the level lets them.
    pub success: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::default(), filter: None, success: true }
    }
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Which defaults hold for the tasks folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// Safe first: settle longer, refuse what others may write to, do not start with a broken file.
    #[default]
    Production,
    /// Quick first: what is broken, or open to others, is a line in the log.
    Development,
}
