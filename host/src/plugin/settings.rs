//! What can be set for one plugin.

use std::time::Duration;

/// Where a plugin's code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// In a process of its own, one per build.
    #[default]
    Child,
    /// In the host's process.
    InProcess,
}

/// What `taskbay.toml` says of one plugin.
#[derive(Debug, Clone)]
pub struct PluginSettings {
    /// Where the plugin runs.
    pub isolation: Isolation,
    /// The most memory, in bytes, that the plugin's process may allocate; only for [`Isolation::Child`].
    pub memory_limit: Option<u64>,
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
            timeout: None,
            cancel_grace: Duration::from_millis(500),
            start_timeout: Duration::from_secs(10),
            roll_back: true,
            settings: serde_json::Map::new(),
        }
    }
}
