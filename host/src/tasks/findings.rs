//! What the reloader does about the scanner's findings: each moves its file from one state to another.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{
    TasksFolder,
    file_reader::{Contents, Fault, Finding, Loadable},
    file_state::{FileState, Step},
    folder_error::FolderError,
    known_file::KnownFile,
    launch::{Again, Refusal},
    listing::Kind,
    scanner::{Found, Listed},
    sections,
    trust::Trust,
};
use crate::{
    events::{Event, FileRejection, FolderTrouble},
    plugin::{BuildId, ExecutableFile, Generation},
};

impl TasksFolder {
    pub(super) fn take_found(&mut self, found: Found) {
        match found {
            Found::Unusable(error) => self.folder_is_unusable(error),
            Found::Listing(listed) => self.take_listing(listed),
            Found::File(file, Finding::Contents(contents)) => self.take_contents(&file, contents),
            Found::File(file, Finding::Unreadable(reason)) => self.refuse_contents(&file, reason, None),
            Found::File(file, Finding::Touched(key)) => {
                if let Some(serving) = self.files.get(&file).and_then(|known| known.serving.as_ref()) {
                    serving.generation.verify_again(key);
                }
            }
        }
    }

    /// Without a folder there is no word on its files; only after a while does that mean that they are gone.
    fn folder_is_unusable(&mut self, error: FolderError) {
        let before = self.unusable.take();
        let since = before.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        // The error that ends a start says it.
        let is_told = self.listed || self.may_start_without(&error);
        if is_told && before.is_none_or(|(_, before)| before != error) {
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
        self.unusable = Some((since, error));
        if self.settings.missing_grace.is_some_and(|grace| since.elapsed() >= grace) {
            let names: Vec<String> = self.files.keys().cloned().collect();
            names.iter().for_each(|name| self.remove(name));
        }
    }

    fn take_listing(&mut self, listed: Listed) {
        let folder = &self.settings.path;
        if self.unusable.take().is_some() {
            self.services.events.emit(Event::FolderBack { folder: folder.clone() });
        }
        self.notices.warn(&folder.display().to_string(), listed.warning);
        self.take_allow_list(listed.trust, listed.list_changed);
        self.let_go(&listed.files);
        self.notices.skip(listed.skipped);
        for (name, kind) in listed.files {
            let known = self.files.entry(name).or_insert_with(|| KnownFile::new(kind));
            if known.state.is_gone() {
                known.state = FileState::Unfinished;
            }
        }
    }

    /// Says once what is wrong with the allow-list.
    fn take_allow_list(&mut self, trust: Trust, changed: bool) {
        self.trust = trust;
        let Some((path, problem, lax)) = self.trust.list() else { return };
        let file = path.display().to_string();
        match problem.filter(|_| changed) {
            Some(problem) => {
                let reason =
                    format!("{problem} (until this list can be used, nothing new is loaded, and what serves goes on)");
                let rejection = FileRejection { file, reason, serving: None, retry_in: None };
                self.services.events.emit(Event::FileRejected(rejection));
            }
            None => self.notices.warn(&file, lax.map(str::to_owned)),
        }
    }

    /// Removes what is no longer listed. Some tools remove a file before they write its successor, so a missing file gets
    /// as long as events do to settle, unless another one came: then it was renamed.
    fn let_go(&mut self, listed: &BTreeMap<String, Kind>) {
        let renamed = listed.keys().any(|name| !self.files.contains_key(name));
        let mut gone = Vec::new();
        for (name, known) in self.files.iter_mut().filter(|(name, _)| !listed.contains_key(*name)) {
            let since = match known.state {
                FileState::Gone { since } => since,
                _ => Instant::now(),
            };
            known.state = FileState::Gone { since };
            if renamed || known.serving.is_none() || since.elapsed() >= self.settings.settle {
                gone.push(name.clone());
            }
        }
        for name in &gone {
            self.remove(name);
        }
    }

    fn remove(&mut self, name: &str) {
        self.withdraw(name);
        self.files.remove(name);
    }

    fn take_contents(&mut self, file: &str, contents: Contents) {
        let Some(known) = self.files.get_mut(file) else { return };
        let Contents { build, key, asked, loadable, warning } = contents;
        let step = known.state.step(build, asked, known.in_service(&self.plugins), known.given_up);
        known.given_up = known.given_up.filter(|given_up| *given_up == build);
        if let Some(serving) = known.serving.as_ref().filter(|serving| serving.generation.build() == build) {
            serving.generation.verify_again(key);
        }
        match (step, loadable) {
            (Step::Keep, _) => {}
            (Step::Settle, _) => self.settle(file, build),
            (Step::TakeIn, Ok(loadable)) => {
                self.notices.warn(file, warning);
                match loadable {
                    Loadable::Plugin(image) => self.launch(file, Arc::new(image)),
                    Loadable::Executable(executable) => self.serve_executable(file, executable),
                }
            }
            (Step::TakeIn, Err(Fault::Library(reason))) => self.skip(file, reason),
            (Step::TakeIn, Err(Fault::Short(reason) | Fault::Unfit(reason))) => {
                self.refuse_contents(file, reason, Some(build));
            }
        }
    }

    /// What serves is what should. If that is what the file holds, a refusal is taken back.
    fn settle(&mut self, file: &str, build: BuildId) {
        let Some(known) = self.files.get_mut(file) else { return };
        let was_refused = known.state.refusal().is_some();
        known.state = FileState::Serving;
        if was_refused && known.serves() == Some(build) {
            self.services.events.emit(Event::FileRestored(file.to_owned(), build));
        }
    }

    /// Takes an executable into service. Nothing is launched: each of its jobs is a process of its own.
    fn serve_executable(&mut self, file: &str, executable: ExecutableFile) {
        self.tell_settings_without_effect(file, Kind::Executable);
        let (began, build) = (Instant::now(), executable.build);
        let settings = self.plugins.get(&executable.identifier).clone();
        let identifier = executable.identifier.clone();
        match Generation::of_executable(executable, &settings, &self.services.events) {
            Ok(generation) => self.serve(file, generation, settings, began.elapsed()),
            Err(error) => {
                let reason = sections::explain(&self.plugins, &identifier, &error);
                self.refuse_contents(file, reason, Some(build));
            }
        }
    }

    /// Refuses what a file holds, or a file that cannot be read. An executable does not serve on: it runs from where it is, and
    /// there is no copy of its old contents.
    fn refuse_contents(&mut self, file: &str, reason: String, build: Option<BuildId>) {
        if self.files.get(file).is_some_and(|known| known.kind == Kind::Executable) {
            self.withdraw(file);
        }
        self.refuse(file, Refusal { reason, build, again: Again::OnChange });
    }

    /// Leaves an executable alone that is a compiled library.
    fn skip(&mut self, file: &str, reason: String) {
        self.withdraw(file);
        if let Some(known) = self.files.get_mut(file) {
            known.state = FileState::Skipped(reason.clone());
        }
        self.services.events.emit(Event::FileSkipped { file: file.to_owned(), reason, unexpected: true });
    }
}
