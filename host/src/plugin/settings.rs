//! What can be set for one plugin.

use std::{fmt, time::Duration};

/// Where a plugin's code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// In a process of its own, one per build.
    #[default]
    Child,
    /// In the host's process.
    InProcess,
}

/// What a plugin's process is told of the host's database.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum DatabaseAccess {
    /// Nothing that would let it in.
    #[default]
    None,
    /// What the host's environment says: `PGPASSWORD` and the like.
    Environment,
    /// This, as `DATABASE_URL`.
    Url(String),
}

/// Without the password that may be in it.
impl fmt::Debug for DatabaseAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Environment => "Environment",
            Self::Url(_) => "Url(…)",
        })
    }
}

/// What `taskbay.toml` says of one plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginSettings {
    /// Where the plugin runs.
    pub isolation: Isolation,
    /// The most memory, in bytes, that the plugin's process may allocate; only for [`Isolation::Child`].
    pub memory_limit: Option<u64>,
    /// How many files, sockets and the like the plugin's process may have open; only for [`Isolation::Child`].
    pub open_files: Option<usize>,
    /// How many processes and threads the user may have whom the plugin's process runs as; only for [`Isolation::Child`].
    pub processes: Option<usize>,
    /// Whom the plugin's process runs as, by name, if the host runs as root; only for [`Isolation::Child`].
    pub user: Option<String>,
    /// What the plugin's process is told of the database.
    pub database: DatabaseAccess,
    /// How long a job may run whose task states no limit of its own.
    pub timeout: Option<Duration>,
    /// How long a job may take to end after it was told to stop, before its future is dropped and then its process killed.
    pub cancel_grace: Duration,
    /// How long loading and starting up may take.
    pub start_timeout: Duration,
    /// Whether a build that crashes goes back to the one before it, which did not; only for [`Isolation::Child`].
    pub roll_back: bool,
    /// Handed to the plugin's start-up: a JSON object.
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
