//! The reasons to refuse a build. Each message has the error and a remedy, without the file's name.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use taskbay_abi::STATUS_DISCARD;
use thiserror::Error;

/// The reason why a build was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum LaunchError {
    /// The dynamic loader failed.
    #[error("the system's loader refuses it: {0}")]
    Map(String),
    /// A shared library, but of another kind.
    #[error(
        "it is a library but no taskbay plugin: it lacks the symbol {0}; end its lib.rs with plugin!(…) and build it as a cdylib"
    )]
    NoEntry(String),
    /// The header is invalid.
    #[error("its plugin header is damaged ({0}): rebuild it")]
    Header(String),
    /// A different major version, or a newer minor version, of the interface.
    #[error(
        "was built for taskbay plugin interface {found}, this host speaks {ours}: rebuild it with a matching taskbay-plugin"
    )]
    OtherInterface { found: String, ours: String },
    /// The same version, but different types.
    #[error("its interface types differ from this host's ({0}): rebuild it with this host's version of taskbay-plugin")]
    Layout(String),
    /// It breaks a rule for names.
    #[error("{0}")]
    Manifest(String),
    /// A panic would end the host.
    #[error(
        "was built with panic = \"abort\", so that a panicking task would end the host: remove that from its profile, or run it isolated"
    )]
    PanicAbort,
    /// Its process ended while the file was mapped.
    #[error("its constructor crashed ({0}): the file cannot be loaded; rebuild it")]
    LoadCrashed(String),
    /// Its process exited while the file was mapped.
    #[error("it called exit({0}) while loading: remove that from its constructors")]
    LoadExited(i32),
    /// The file was not mapped in time.
    #[error("it did not finish loading within {}: look for a constructor that waits", humantime::format_duration(*.0))]
    LoadTimedOut(Duration),
    /// Its process was killed from outside before it was ready.
    #[error("its process {0} before it was ready")]
    Killed(String),
    /// The start-up returned an error or panicked.
    #[error("its start-up failed: {0}")]
    StartFailed(String),
    /// Its process ended during the start-up.
    #[error("it crashed during its start-up: its process {0}")]
    StartCrashed(String),
    /// The start-up did not end in time.
    #[error("its start-up did not finish within {}: look at what its state waits for", humantime::format_duration(*.0))]
    StartTimedOut(Duration),
    /// This process would run out of thread-local keys, which ends it.
    #[error(
        "this process has only {free} thread-local keys left, because builds that run in it are never unmapped: restart the host, or run this plugin isolated"
    )]
    KeysExhausted { free: usize },
    /// This process has reached its limit of mapped builds.
    #[error("this process has mapped {mapped} builds and unmaps none: restart the host, or run this plugin isolated")]
    TooManyBuilds { mapped: usize },
    /// The same copy was mapped before.
    #[error("this very copy of it is mapped already: save the file again")]
    AlreadyMapped,
    /// A setting of the plugin cannot be applied, or does not match. `key` is its key in the section, or several.
    #[error("{reason}")]
    Setting { key: String, reason: String },
    /// The child's process could not be started.
    #[error("no process could be started for it: {0}")]
    Process(String),
    /// The child is a different program.
    #[error("the program that was to run it is not this taskbay ({0}): was the program replaced? restart the host")]
    Protocol(String),
}

impl LaunchError {
    /// Whether a retry may succeed: a service that the start-up needs may be down, and the machine may be busy or out of
    /// memory. All other errors persist until the file, the settings or this host change.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::LoadTimedOut(_)
            | Self::Killed(_)
            | Self::StartFailed(_)
            | Self::StartCrashed(_)
            | Self::StartTimedOut(_)
            | Self::Process(_) => true,
            Self::Map(_)
            | Self::NoEntry(_)
            | Self::Header(_)
            | Self::OtherInterface { .. }
            | Self::Layout(_)
            | Self::Manifest(_)
            | Self::PanicAbort
            | Self::LoadCrashed(_)
            | Self::LoadExited(_)
            | Self::KeysExhausted { .. }
            | Self::TooManyBuilds { .. }
            | Self::AlreadyMapped
            | Self::Setting { .. }
            | Self::Protocol(_) => false,
        }
    }

    /// The error for a failed start-up. A plugin reports wrong settings with [`STATUS_DISCARD`]; such a start-up would fail in
    /// the same way each time.
    pub(super) fn of_start_up(status: u32, reason: Option<&str>) -> Self {
        let reason = reason.unwrap_or("it gave no reason");
        if status == STATUS_DISCARD {
            Self::Setting { key: "settings".to_owned(), reason: format!("its start-up failed: {reason}") }
        } else {
            Self::StartFailed(reason.to_owned())
        }
    }

    /// The error for a memory limit too small for the start of a build. `said` is the output that shows it.
    pub(super) fn memory_limit(limit: u64, said: &str) -> Self {
        Self::Setting {
            key: "memory_limit".to_owned(),
            reason: format!("its memory_limit of {limit} bytes is too small to start it ({said}): raise it"),
        }
    }
}
