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
mod merge;
mod origin;
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
pub use effective::{EffectiveSetting, effective_settings, settings_of_program};
pub use environment::{WrongVariable, unknown_variables};
pub(crate) use example::default_value;
pub use example::{example_file, markdown_table};
pub use file::{FileError, read_file};
pub use layer::{Layer, PluginLayer};
pub use live::{Changes, LiveSettings, PluginChange, changes, in_force};
pub use origin::Origin;
pub use plugin_lookup::PluginLookup;
pub use plugin_table::PLUGIN_SETTINGS;
pub use section::{WrongSetting, nearest};
pub use setting::{Flag, FlagValue, HostSetting, PluginSetting, Setting, Variable};
pub use table::{SECTIONS, SETTINGS};
pub(crate) use trusted_key::public_key;
pub use units::{parse_duration, parse_milliseconds, parse_size};
pub use value::{Kind, Value};

use crate::{crontab::CronItem, queue::DatabaseSettings};

/// All settings of `taskbay run`.
#[derive(Debug, Clone)]
pub struct Settings {
    pub database: DatabaseSettings,
    pub folder: FolderSettings,
    pub worker: WorkerSettings,
    pub cron: CronSettings,
    pub log: LogSettings,
    pub plugins: PluginLookup,
    /// The program that runs isolated plugins, called as `taskbay plugin-child`.
    pub program: PathBuf,
}

/// The settings of the tasks folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderSettings {
    /// The folder.
    pub path: PathBuf,
    /// Whether this program itself builds the folder's contents; then there is no hint to put files there.
    pub filled_by_builds: bool,
    /// Whether a broken file at the start is only logged, for development, instead of ending the host.
    pub tolerate_broken_start: bool,
    /// The time without events before the folder is listed.
    pub settle: Duration,
    /// The maximum delay of a listing by continuous events.
    pub settle_cap: Duration,
    /// The interval between listings of the folder without events.
    pub rescan: Duration,
    /// The time after which a missing folder's tasks are removed; `None`: never.
    pub missing_grace: Option<Duration>,
    /// Whether to refuse folders and files that other users can write to, instead of a warning.
    pub strict_permissions: bool,
    /// A list of the files that may be loaded, in the format of `sha256sum`; `None`: all files.
    pub manifest: Option<PathBuf>,
    /// minisign public keys. If there are any, only files signed with one of them are loaded.
    pub trusted_keys: Vec<String>,
}

/// The settings of the worker pool.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// The maximum number of jobs running at once, over all plugins.
    pub concurrency: usize,
    /// The interval between polls for jobs without a notification.
    pub poll_interval: Duration,
    /// The time between a stop signal and the request to running jobs to end.
    pub abort_timeout: Duration,
    /// The time between a stop signal and the cancellation and release of running jobs.
    pub stop_timeout: Option<Duration>,
    /// Jobs with any of these flags are left to other hosts.
    pub forbidden_flags: ForbiddenFlags,
    /// Whether to listen for notifications of new jobs; otherwise, only polling finds them.
    pub listen: bool,
    /// Whether this host holds a liveness lock; other hosts take over its jobs when the lock is lost.
    pub liveness: bool,
    /// The number of successive crashes after which a job is not retried, if it ran alone in its process in the last one.
    pub max_crashes: usize,
    /// The clock for due times.
    pub clock: Clock,
    /// The lane of claims.
    pub claim: Claim,
    /// The number of jobs to claim ahead, instead of as many as finish within 100 ms.
    pub local_queue: Option<LocalQueue>,
    /// The time that a done job with a lease waits for others, to store them together.
    pub complete_job_batch_delay: Duration,
    /// The same for failed jobs.
    pub fail_job_batch_delay: Duration,
    /// The shortest and the longest time between two checks for expired leases.
    pub reset_locked: (Duration, Duration),
    /// The interval between renewals of long jobs' leases; less than the 4 hours after which a lease expires.
    pub refresh_locked: Duration,
    /// The clock for [`Clock::Process`].
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

/// The clock for due times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// The database server's clock: the same for all hosts.
    #[default]
    Database,
    /// This process's clock, like graphile-worker's `useNodeTime`.
    Process,
}

/// The lane of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Claim {
    /// Locks, runs and deletes short jobs without key and queue in one short transaction; claims all others with leases.
    #[default]
    Express,
    /// Claims all jobs with leases in one statement and deletes them in a later one, as graphile-worker does.
    Marked,
}

/// A fixed number of jobs claimed ahead, like graphile-worker's `localQueue`. All of them are claimed with leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalQueue {
    /// The number of jobs to claim at once when none is waiting for a slot; at most 1,000.
    pub size: usize,
    /// The time after which a waiting job is released.
    pub ttl: Duration,
    /// The wait after a claim of few jobs.
    pub refetch: Option<Refetch>,
}

impl LocalQueue {
    /// The default of `ttl`.
    pub const TTL: Duration = Duration::from_secs(5 * 60);
}

/// Delays the next claim after a claim of few jobs, to claim more at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refetch {
    /// The delay, randomized by up to a half in either direction.
    pub delay: Duration,
    /// The largest number of jobs that counts as few.
    pub threshold: usize,
    /// The maximum number of notified new jobs before the wait ends; the actual number is random.
    pub max_abort_threshold: usize,
}

impl WorkerSettings {
    /// The wait after a claim of few jobs, if configured.
    pub fn refetch(&self) -> Option<&Refetch> {
        self.local_queue.as_ref()?.refetch.as_ref()
    }
}

/// The schedules besides those declared by plugins.
#[derive(Debug, Clone, Default)]
pub struct CronSettings {
    /// A crontab file, which need not exist. Empty: no file.
    pub crontab: PathBuf,
    /// Schedules of the embedding program.
    pub items: Vec<CronItem>,
}

/// The settings of the log.
#[derive(Debug, Clone)]
pub struct LogSettings {
    pub format: LogFormat,
    /// A level, or directives as in `RUST_LOG`; `None`: the command's default.
    pub filter: Option<String>,
    /// Whether to log done jobs, if the level includes them.
    pub success: bool,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::default(), filter: None, success: true }
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Readable text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The defaults for the tasks folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Purpose {
    /// Favours safety: longer settling, no files that other users can write to, no start with a broken file.
    #[default]
    Production,
    /// Favours speed: broken or writable files are only logged.
    Development,
}
