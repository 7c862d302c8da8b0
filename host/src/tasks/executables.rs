//! What differs for executable files: nothing is launched for them, they run from where they are, and plugins go first.

use std::{collections::BTreeMap, time::Instant};

use super::{
    TasksFolder,
    folder::Folder,
    listing::{Candidate, Kind, Skipped, identifier},
    scanning::contained,
    sections,
};
use crate::{events::Event, plugin::Generation};

impl TasksFolder {
    /// Takes an executable into service if its contents are new, and out of it if it may not run (any more): there is no
    /// copy of the old contents that could.
    pub(super) fn look_at_executable(&mut self, folder: &Folder, name: &str, candidate: &Candidate) {
        let began = Instant::now();
        let known = self.files.get_mut(name).expect("looked-at files are known");
        let look = || known.read_executable(folder, name, candidate, (&self.trust, self.settings.settle));
        match contained(look) {
            Ok(None) => {}
            Ok(Some((file, warning))) => {
                self.warn(name, warning);
                self.tell_settings_without_effect(name, Kind::Executable);
                let settings = self.plugins.get(&file.identifier);
                match Generation::of_executable(file, settings, &self.services.events) {
                    Ok(generation) => self.serve(name, generation, began.elapsed()),
                    Err(error) => {
                        let reason = sections::explain(&self.plugins, identifier(name), &error);
                        self.withdraw(name);
                        self.refuse(name, reason, false);
                    }
                }
            }
            Err(reason) => {
                let is_library = known.is_library;
                known.forget_contents_that_serve();
                if is_library {
                    known.refused = None;
                }
                self.withdraw(name);
                if is_library {
                    let file = name.to_owned();
                    self.services.events.emit(Event::FileSkipped { file, reason, unexpected: true });
                } else {
                    self.refuse(name, reason, false);
                }
            }
        }
    }

    /// Says once of each thing why it is not looked at.
    pub(super) fn skip(&mut self, skipped: BTreeMap<String, Skipped>) {
        for (file, Skipped { reason, unexpected }) in &skipped {
            if self.skipped.get(file).is_none_or(|before| before.reason != *reason) {
                let (file, reason, unexpected) = (file.clone(), reason.clone(), *unexpected);
                self.services.events.emit(Event::FileSkipped { file, reason, unexpected });
            }
        }
        self.skipped = skipped;
    }

    /// Says once of each executable whose task is another file's which file that is.
    pub(super) fn tell_shadowed(&mut self, shadowed: BTreeMap<String, (String, String)>) {
        for (file, (task, by)) in &shadowed {
            if self.shadowed.get(file).is_none_or(|before| before.1 != *by) {
                let (file, task, by) = (file.clone(), task.clone(), by.clone());
                self.services.events.emit(Event::TaskShadowed { file, task, by });
            }
        }
        self.shadowed = shadowed;
    }
}
