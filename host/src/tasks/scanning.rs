//! Listing the folder reads, hashes and verifies files, which takes as long as it takes: it is done on a thread that may block.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use super::{
    TasksFolder,
    folder::{Folder, FolderError},
    known_file::KnownFile,
    listing::{Candidate, Kind},
    watcher::Watcher,
};
use crate::{
    blocking::off_the_runtime,
    events::{Event, FolderTrouble},
    parts::message_of,
};

impl TasksFolder {
    /// Lists the folder and begins to launch what is new.
    fn scan(&mut self, forced: bool) -> Result<(), FolderError> {
        let (listing, folder, warning) = Folder::open(&self.settings.path, self.settings.strict_permissions)
            .and_then(|(folder, warning)| Ok((folder.list()?, folder, warning)))
            .inspect_err(|error| self.folder_is_unusable(error))?;
        if self.unusable.take().is_some() {
            self.services.events.emit(Event::FolderBack { folder: self.settings.path.clone() });
        }
        self.warn(&self.settings.path.display().to_string(), warning);
        let trust_changed = self.look_whom_to_trust();
        self.let_go(&listing.files);
        self.skip(listing.skipped);
        self.folders = listing.folders;
        for (name, candidate) in &listing.files {
            let known = self.files.entry(name.clone()).or_default();
            (known.kind, known.gone_since) = (candidate.kind, None);
            known.retry |= known.may_be_vouched_for(&self.trust, trust_changed, &folder.path_of(name));
            if forced {
                self.give_another_chance(name);
            }
            match candidate.kind {
                Kind::Plugin => self.look_at(&folder, name, candidate),
                Kind::Executable => self.look_at_executable(&folder, name, candidate),
            }
        }
        self.publish();
        Ok(())
    }

    /// Removes what is no longer listed. Some tools remove a file before they write its successor, so a missing file gets
    /// as long as events do to settle, unless another one came: then it was renamed.
    fn let_go(&mut self, listed: &BTreeMap<String, Candidate>) {
        let renamed = listed.keys().any(|name| !self.files.contains_key(name));
        let mut gone = Vec::new();
        for (name, known) in &mut self.files {
            if !listed.contains_key(name) {
                let since = *known.gone_since.get_or_insert_with(Instant::now);
                if renamed || known.serving.is_none() || since.elapsed() >= self.settings.settle {
                    gone.push(name.clone());
                }
            }
        }
        for name in &gone {
            self.remove(name);
        }
    }

    /// Without a folder there is no word on its files; only after a while does that mean that they are gone.
    fn folder_is_unusable(&mut self, error: &FolderError) {
        let before = self.unusable.take();
        let since = before.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        // The error that ends a start says it.
        let is_told = self.listed || self.may_start_without(error);
        if is_told && before.is_none_or(|(_, before)| before != *error) {
            // An executable runs from where it is.
            let keeps_serving = |file: &&KnownFile| {
                file.serving.is_some() && !(file.kind == Kind::Executable && error.takes_files_away())
            };
            let serving = self.files.values().filter(keeps_serving).count();
            let folder = self.settings.path.clone();
            let trouble = FolderTrouble { folder, reason: error.to_string(), serving };
            let missing = matches!(error, FolderError::Missing(_));
            let event = if missing { Event::FolderMissing(trouble) } else { Event::FolderUnusable(trouble) };
            self.services.events.emit(event);
        }
        self.unusable = Some((since, error.clone()));
        if self.settings.missing_grace.is_some_and(|grace| since.elapsed() >= grace) {
            let names: Vec<String> = self.files.keys().cloned().collect();
            names.iter().for_each(|name| self.remove(name));
            self.publish();
        }
    }

    /// Lists the folder while it is watched, and says whether to do so again at once.
    pub(super) async fn watch_and_scan(mut self, mut watcher: Watcher, forced: bool) -> (Self, Watcher, bool) {
        off_the_runtime(move || {
            watcher.arm();
            // A folder that cannot be listed was announced; it is looked at again.
            let _ = self.scan(forced);
            // What changed in a folder between its listing and its first watch.
            let again = watcher.follow(&self.folders);
            (self, watcher, again)
        })
        .await
    }

    /// As [`TasksFolder::scan`], which reads, hashes and verifies files, on a thread that may block.
    pub(super) async fn scan_aside(mut self, forced: bool) -> (Self, Result<(), FolderError>) {
        off_the_runtime(move || {
            let listed = self.scan(forced);
            (self, listed)
        })
        .await
    }
}

/// Looks at a file. If that panics, the file is refused, and costs neither the others nor the host.
pub(super) fn contained<T>(look: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|panic| {
        Err(format!("cannot be looked at: internal error of this host: {}", message_of(&*panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_panics_whoever_looks_at_it_is_refused() {
        let refused = contained::<()>(|| panic!("what a file")).unwrap_err();
        assert!(refused.ends_with("internal error of this host: what a file"), "{refused}");
    }
}
