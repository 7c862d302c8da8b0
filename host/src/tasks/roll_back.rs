//! A new build is on trial for a while: if its process crashes again and again although that of the build before it did not,
//! the one before it serves once more, until the file changes.

use std::{sync::Arc, time::Instant};

use super::{TasksFolder, launch::LaunchReason, trial::Trial};
use crate::events::{Event, PluginBuild};

/// So many crashes are too many.
const TOO_MANY: u32 = 3;

impl TasksFolder {
    /// Goes back to the build before where a new one has failed its trial, and ends trials that were passed.
    pub(super) fn look_at_trials(&mut self) {
        let mut back = Vec::new();
        for (name, known) in &mut self.files {
            // What the file holds by now may be better, and a roll-back may wait for its next try.
            let rolls_back = known.state.relaunch().is_some_and(|relaunch| relaunch.reason == LaunchReason::RollBack);
            if rolls_back || known.state.launch().is_some() || known.state.is_gone() {
                continue;
            }
            let Some((serving, trial)) = known.serving.as_ref().and_then(|one| Some((one, one.trial.as_ref()?))) else {
                continue;
            };
            let Trial { before, ends } = trial;
            let (build, crashes) = (serving.generation.build(), serving.generation.crashes());
            let wanted = self.plugins.get(&before.plugin).roll_back && !self.trust.is_delisted(name, before.build);
            if crashes >= TOO_MANY && wanted {
                self.services.events.emit(Event::RolledBack {
                    build: PluginBuild { plugin: before.plugin.clone(), build },
                    file: name.clone(),
                    to: before.build,
                    crashes,
                });
                back.push((name.clone(), Arc::clone(before)));
                known.given_up = Some(build);
            } else if *ends <= Instant::now() {
                known.end_trial();
            }
        }
        for (name, image) in back {
            self.launch_again(&name, image, LaunchReason::RollBack, None);
        }
    }
}
