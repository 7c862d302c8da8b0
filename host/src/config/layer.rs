//! A layer of settings: those of one source.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{Claim, Clock, LogFormat, Origin};
use crate::plugin::Isolation;

/// The settings of one source: the flags, the environment or the file. `None`: not set.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// From the flag or `DATABASE_URL`.
    pub connection: Option<String>,
    /// From the file, as `url` or in parts. A separate field, because the `PG*` variables rank between the two.
    pub file_connection: Option<String>,
    pub file_host: Option<String>,
    pub file_port: Option<usize>,
    pub file_user: Option<String>,
    pub file_dbname: Option<String>,
    pub file_sslmode: Option<String>,
    pub schema: Option<String>,
    pub max_pool_size: Option<usize>,
    pub tasks_directory: Option<PathBuf>,
    pub settle: Option<Duration>,
    pub settle_cap: Option<Duration>,
    pub rescan: Option<Duration>,
    pub missing_grace: Option<Duration>,
    pub strict_permissions: Option<bool>,
    pub manifest: Option<PathBuf>,
    pub trusted_keys: Option<Vec<String>>,
    pub concurrency: Option<usize>,
    pub poll_interval: Option<Duration>,
    pub abort_timeout: Option<Duration>,
    pub stop_timeout: Option<Duration>,
    pub forbidden_flags: Option<Vec<String>>,
    pub listen: Option<bool>,
    pub liveness: Option<bool>,
    pub max_crashes: Option<usize>,
    pub clock: Option<Clock>,
    pub claim: Option<Claim>,
    pub local_queue_size: Option<usize>,
    pub local_queue_ttl: Option<Duration>,
    pub refetch_delay: Option<Duration>,
    pub refetch_threshold: Option<usize>,
    pub refetch_max_abort_threshold: Option<usize>,
    pub complete_job_batch_delay: Option<Duration>,
    pub fail_job_batch_delay: Option<Duration>,
    pub min_reset_locked_interval: Option<Duration>,
    pub max_reset_locked_interval: Option<Duration>,
    pub crontab: Option<PathBuf>,
    pub prepared_statements: Option<bool>,
    pub log_format: Option<LogFormat>,
    pub log_filter: Option<String>,
    pub log_success: Option<bool>,
    /// For all plugins; overrides their sections.
    pub all_plugins: PluginLayer,
    pub plugin_defaults: PluginLayer,
    pub plugins: BTreeMap<String, PluginLayer>,
    /// The origins of the values, by the settings' paths. A value without an origin comes from the program itself.
    pub origins: BTreeMap<String, Origin>,
}

/// The settings in a plugin's section of the file.
#[derive(Debug, Clone, Default)]
pub struct PluginLayer {
    pub isolation: Option<Isolation>,
    pub memory_limit: Option<u64>,
    pub open_files: Option<usize>,
    pub processes: Option<usize>,
    pub user: Option<String>,
    pub database_url: Option<bool>,
    pub timeout: Option<Duration>,
    pub cancel_grace: Option<Duration>,
    pub start_timeout: Option<Duration>,
    pub roll_back: Option<bool>,
    pub settings: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Layer {
    /// Records the origin of a setting's value.
    pub(crate) fn note(&mut self, path: impl Into<String>, origin: Origin) {
        self.origins.insert(path.into(), origin);
    }

    /// The origin of a setting's value.
    pub(super) fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or_default()
    }
}
