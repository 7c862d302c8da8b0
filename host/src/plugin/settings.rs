//! The settings of a plugin.

use std::{fmt, time::Duration};

/// The process in which a plugin's code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// A separate process for each build.
    #[default]
    Child,
    /// The host's process.
    InProcess,
}

/// The information for a plugin's process about the host's database.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum DatabaseAccess {
    /// No credentials.
    #[default]
    None,
    /// The host's environment variables, such as `PGPASSWORD`.
    Environment,
    /// This value, as `DATABASE_URL`.
    Url(String),
}

/// Hides a password in the URL.
impl fmt::Debug for DatabaseAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Environment => "Environment",
            Self::Url(_) => "Url(…)",
        })
    }
}

/// The settings of a plugin in `taskbay.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginSettings {
    /// The process in which the plugin runs.
    pub isolation: Isolation,
    /// The maximum memory, in bytes, that the plugin's process may allocate; only for [`Isolation::Child`].
    pub memory_limit: Option<u64>,
    /// The maximum number of open file descriptors of the plugin's process; only for [`Isolation::Child`].
    pub open_files: Option<usize>,
    /// The maximum number of processes and threads of the process's user; only for [`Isolation::Child`].
    pub processes: Option<usize>,
    /// The name of the process's user, if the host runs as root; only for [`Isolation::Child`].
    pub user: Option<String>,
    /// The information for the plugin's process about the database.
    pub database: DatabaseAccess,
    /// The time limit of jobs whose task has none of its own.
    pub timeout: Option<Duration>,
    /// The time that a job has to end after it was told to, before its future is dropped and then its process killed.
    pub cancel_grace: Duration,
    /// The time limit for loading and start-up.
    pub start_timeout: Duration,
    /// Whether to roll back a crashing build to a previous one that never crashed; only for [`Isolation::Child`].
    pub roll_back: bool,
    /// The settings for the plugin's start-up: a JSON object.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            memory_limit: None,
            open_files: None,
            processes: None,
            user: None,
            database: DatabaseAccess::None,
            timeout: None,
            cancel_grace: Duration::from_millis(500),
            start_timeout: Duration::from_secs(10),
            roll_back: true,
            settings: serde_json::Map::new(),
        }
    }
}
