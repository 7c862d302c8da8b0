//! One build of a plugin, from launch to the end of its last job.

use std::{path::Path, sync::Arc};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{BuildId, HostServices, Image, JobInput, LaunchError, ManifestInfo, Outcome, PluginSettings, TaskSpec};

/// Loads a build in a process of its own, without starting it up, and tells what it is: what `taskbay check` shows, and
/// what keeps a file whose constructor crashes out of this process.
pub async fn probe(_image: &Image, _settings: &PluginSettings, _program: &Path) -> Result<ManifestInfo, LaunchError> {
    Err(LaunchError::AlreadyMapped)
}

/// Whether a generation can take jobs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It takes jobs.
    Serving,
    /// Its process crashed and is being started again.
    Restarting,
    /// Its process crashed too often: it takes no jobs until another build replaces it.
    Quarantined { reason: String },
    /// It was retired.
    Stopped,
}

/// One build of a plugin that has been loaded and started.
#[derive(Debug)]
pub struct Generation {
    image: Arc<Image>,
    manifest: ManifestInfo,
    availability: watch::Sender<Availability>,
}

impl Generation {
    /// Loads and starts a build: its tasks are known and its start-up has succeeded when this returns.
    pub async fn launch(
        _image: Arc<Image>,
        _settings: &PluginSettings,
        _services: &HostServices,
    ) -> Result<Arc<Generation>, LaunchError> {
        Err(LaunchError::AlreadyMapped)
    }

    /// The plugin's name, from its file's name.
    pub fn plugin(&self) -> &str {
        &self.image.plugin
    }

    /// Which build this is.
    pub fn build(&self) -> BuildId {
        self.image.build
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &ManifestInfo {
        &self.manifest
    }

    /// Its tasks; their indexes are those that [`Generation::run`] takes.
    pub fn tasks(&self) -> &[TaskSpec] {
        &self.manifest.tasks
    }

    /// Follows whether it takes jobs.
    pub fn availability(&self) -> watch::Receiver<Availability> {
        self.availability.subscribe()
    }

    /// How many jobs run on it now.
    pub fn in_flight(&self) -> usize {
        0
    }

    /// Runs one job to its end. The limit of the task, or else the plugin's, cancels it; so does `cancel`.
    pub async fn run(&self, _task: u32, _job: &JobInput<'_>, _cancel: &CancellationToken) -> Outcome {
        Outcome::NotStarted
    }

    /// Takes no more jobs, waits for those that run, then shuts the plugin down.
    pub async fn retire(&self) {}

    /// Ends it at once: what still runs is failed as cancelled.
    pub async fn kill(&self) {}
}
