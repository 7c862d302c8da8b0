//! A new build is on trial for a while: if its process crashes again and again although that of the build before it did not,
//! the one before it serves once more, until the file changes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::TasksFolder;
use crate::{
    events::{Event, PluginBuild},
    plugin::{BuildId, Generation, Image},
};

/// How long. Until then, the build before is kept in memory.
const TRIAL: Duration = Duration::from_secs(10 * 60);
/// So many crashes are too many.
const TOO_MANY: u32 = 3;

/// What is known of the build before the one that serves.
#[derive(Debug)]
pub(super) struct Trial {
    before: Arc<Image>,
    ends: Instant,
}

impl Trial {
    /// Of a build that replaces this one. None if there is nothing good to go back to.
    pub(super) fn after(replaced: &Generation) -> Option<Self> {
        let before = Arc::clone(replaced.image().filter(|_| replaced.crashes() == 0)?);
        Some(Self { before, ends: Instant::now() + TRIAL })
    }
}

impl TasksFolder {
    /// Goes back to the build before where a new one has failed its trial, and ends trials that were passed.
    pub(super) fn look_at_trials(&mut self) {
        let mut back = Vec::new();
        for (name, known) in &mut self.files {
            let Some(Trial { before, ends }) = &known.trial else { continue };
            let Some(serving) = &known.serving else { continue };
            let crashes = serving.generation.crashes();
            let wanted = self.plugins.get(&before.plugin).roll_back && !self.trust.is_delisted(name, before.build);
            if crashes >= TOO_MANY && wanted {
                known.goes_back_to = Some(before.build);
                self.services.events.emit(Event::RolledBack {
                    build: PluginBuild { plugin: before.plugin.clone(), build: serving.generation.build() },
                    file: name.clone(),
                    to: before.build,
                    crashes,
                });
                back.push((name.clone(), Arc::clone(before)));
                known.trial = None;
            } else if *ends <= Instant::now() {
                known.trial = None;
            }
        }
        for (name, image) in back {
            self.launch(&name, image);
        }
    }

    /// Whether a build is what its file holds, or what it goes back to, or one that serves and is started anew.
    pub(super) fn is_wanted(&self, file: &str, build: BuildId) -> bool {
        let Some(known) = self.files.get(file) else { return false };
        let serving = known.serving.as_ref().map(|serving| serving.generation.build());
        known.goes_back_to.or(known.build) == Some(build) || serving == Some(build)
    }
}
