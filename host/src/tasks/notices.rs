//! What is said once: of things in the folder that are no tasks, of lax permissions, and of tasks that another file has.

use std::collections::{BTreeMap, BTreeSet};

use super::listing::Skipped;
use crate::events::{Event, Events};

/// What was said.
#[derive(Debug)]
pub(super) struct Notices {
    events: Events,
    warned: BTreeSet<String>,
    skipped: BTreeMap<String, Skipped>,
    shadowed: BTreeMap<String, (String, String)>,
}

impl Notices {
    pub(super) fn new(events: Events) -> Self {
        Self { events, warned: BTreeSet::new(), skipped: BTreeMap::new(), shadowed: BTreeMap::new() }
    }

    /// Warns of permissions that are lax, for as long as the host runs but once.
    pub(super) fn warn(&mut self, what: &str, warning: Option<String>) {
        if let Some(reason) = warning
            && self.warned.insert(what.to_owned())
        {
            self.events.emit(Event::LaxPermissions { what: what.to_owned(), reason });
        }
    }

    /// Says of each thing that is no task why.
    pub(super) fn skip(&mut self, skipped: BTreeMap<String, Skipped>) {
        for (file, Skipped { reason, unexpected }) in &skipped {
            if self.skipped.get(file).is_none_or(|before| before.reason != *reason) {
                let (file, reason, unexpected) = (file.clone(), reason.clone(), *unexpected);
                self.events.emit(Event::FileSkipped { file, reason, unexpected });
            }
        }
        self.skipped = skipped;
    }

    /// What is no task, and why.
    pub(super) fn skipped(&self) -> impl Iterator<Item = (&str, &str)> {
        self.skipped.iter().map(|(file, skipped)| (file.as_str(), skipped.reason.as_str()))
    }

    /// A task of a file that it gets no jobs of, and the file that gets them.
    pub(super) fn shadowed(&self, file: &str) -> Option<&(String, String)> {
        self.shadowed.get(file)
    }

    /// Says of each executable whose task another file has which file that is.
    pub(super) fn shadow(&mut self, shadowed: BTreeMap<String, (String, String)>) {
        for (file, (task, by)) in &shadowed {
            if self.shadowed.get(file).is_none_or(|before| before.1 != *by) {
                let (file, task, by) = (file.clone(), task.clone(), by.clone());
                self.events.emit(Event::TaskShadowed { file, task, by });
            }
        }
        self.shadowed = shadowed;
    }
}
