//! What the reloader knows of one file: what becomes of what it holds, and the build that its tasks run on.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::{
    file_state::{FileState, InService},
    listing::Kind,
    trial::Trial,
};
use crate::{
    config::PluginLookup,
    plugin::{Availability, BuildId, Generation, PluginSettings, TaskSpec},
};

/// A file of the folder.
#[derive(Debug)]
pub(super) struct KnownFile {
    pub(super) kind: Kind,
    pub(super) state: FileState,
    pub(super) serving: Option<Serving>,
    /// The build that it was rolled back from, which is out of service for as long as the file holds it.
    pub(super) given_up: Option<BuildId>,
}

/// The build that a file's tasks run on.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) generation: Arc<Generation>,
    /// Those that it was started with.
    pub(super) settings: PluginSettings,
    /// What the build has to prove.
    pub(super) trial: Option<Trial>,
    _follow: AbortOnDropHandle<()>,
}

impl KnownFile {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, state: FileState::default(), serving: None, given_up: None }
    }

    /// The build that serves.
    pub(super) fn serves(&self) -> Option<BuildId> {
        self.serving.as_ref().map(|serving| serving.generation.build())
    }

    /// The build that serves stays, however often it crashes.
    pub(super) fn end_trial(&mut self) {
        if let Some(serving) = &mut self.serving {
            serving.trial = None;
        }
    }

    /// The tasks of the build that serves.
    pub(super) fn tasks(&self) -> &[TaskSpec] {
        self.serving.as_ref().map_or(&[], |serving| serving.generation.tasks())
    }

    pub(super) fn in_service(&self, plugins: &PluginLookup) -> Option<InService> {
        let serving = self.serving.as_ref()?;
        let quarantined = matches!(serving.availability(), Availability::Quarantined { .. });
        Some(InService { build: serving.generation.build(), quarantined, outdated: serving.is_outdated(plugins) })
    }

    /// Whether the file has to be read again although nothing may have changed in it.
    pub(super) fn is_in_doubt(&self, plugins: &PluginLookup) -> bool {
        let serving = self.serving.as_ref().filter(|_| self.kind == Kind::Executable);
        // An executable was found changed when a job was to begin, or needs its new settings.
        let doubtful =
            |serving: &Serving| serving.availability() == Availability::Restarting || serving.is_outdated(plugins);
        self.state.is_read_next() || serving.is_some_and(doubtful)
    }
}

impl Serving {
    /// `changed` hears of each change of the build's availability.
    pub(super) fn new(
        generation: Arc<Generation>,
        settings: PluginSettings,
        trial: Option<Trial>,
        changed: Arc<Notify>,
    ) -> Self {
        let mut availability = generation.availability();
        let follow = tokio::spawn(async move {
            while availability.changed().await.is_ok() {
                changed.notify_one();
            }
        });
        Self { generation, settings, trial, _follow: AbortOnDropHandle::new(follow) }
    }

    /// Whether its settings have changed since it was started.
    pub(super) fn is_outdated(&self, plugins: &PluginLookup) -> bool {
        self.settings != *plugins.get(self.generation.plugin())
    }

    fn availability(&self) -> Availability {
        self.generation.availability().borrow().clone()
    }
}
