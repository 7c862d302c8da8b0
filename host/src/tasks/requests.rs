//! Answers what others ask of a folder while it is watched: what it has come to, and to go by other settings.

use std::time::Instant;

use super::{
    Task, TaskMap, TasksFolder,
    file_state::FileState,
    handle::{AppliedSettings, AppliedTo, AppliesFrom, FolderHandle, Request},
    known_file::KnownFile,
    listing::Kind,
    sections::{self, plugin_of},
    snapshot::{
        DrainingSnapshot, FileSnapshot, FolderSnapshot, RefusalSnapshot, ServingSnapshot, ServingState,
        SkippedSnapshot, TaskMapSnapshot, TaskSnapshot, TrialSnapshot, identity,
    },
};
use crate::{
    config::{LiveSettings, PLUGIN_SETTINGS, PluginLookup},
    events::Event,
    plugin::{Availability, Generation},
};

impl TasksFolder {
    /// Answers what is asked by this handle. Only the first folder to say so does.
    pub fn answer(&mut self, handle: &FolderHandle) {
        let requests = handle.take_requests();
        if let Some(requests) = requests {
            self.requests = requests;
        }
    }

    /// Answers one request. Returns whether the folder is to be listed, as if somebody had asked for that.
    pub(super) fn follow_request(&mut self, request: Request) -> bool {
        match request {
            Request::Snapshot(reply) => {
                // Whoever has asked may be gone.
                let _ = reply.send(self.snapshot());
                false
            }
            Request::Settings(settings, reply) => {
                let _ = reply.send(self.apply(*settings));
                true
            }
        }
    }

    fn apply(&mut self, LiveSettings { mut folder, plugins }: LiveSettings) -> AppliedSettings {
        folder.path.clone_from(&self.settings.path);
        self.settings = folder;
        let before = std::mem::replace(&mut self.plugins, plugins);
        let applied = self.applied_since(&before);
        // What serves finishes its jobs under the old settings. Launches under way are looked at when they end, and
        // executables when they are read.
        for file in self.files.keys().cloned().collect::<Vec<_>>() {
            self.restart_if_outdated(&file);
        }
        self.give_another_chance();
        self.tell_unknown_sections();
        applied
    }

    /// How the settings differ from those of before, for each file.
    fn applied_since(&self, before: &PluginLookup) -> AppliedSettings {
        let applied = self.files.iter().map(|(file, known)| {
            let plugin = plugin_of(file, known.kind);
            let (before, now) = (before.get(&plugin), self.plugins.get(&plugin));
            let differs = PLUGIN_SETTINGS.iter().filter(|setting| setting.differs(before, now));
            let from = match known.kind {
                _ if known.serving.is_none() && known.state.launch().is_none() => AppliesFrom::NextStart,
                Kind::Plugin => AppliesFrom::Restart,
                Kind::Executable => AppliesFrom::NextJob,
            };
            (plugin, AppliedTo { keys: differs.map(|setting| setting.key).collect(), from })
        });
        AppliedSettings(applied.collect())
    }

    /// Says of each section of the settings that no file is its plugin, and of each plugin which of its settings do nothing.
    pub(super) fn tell_unknown_sections(&self) {
        let names: Vec<String> = self.files.iter().map(|(file, known)| plugin_of(file, known.kind)).collect();
        for section in super::unknown_sections(&self.plugins, &names) {
            self.services.events.emit(Event::UnknownPluginSection(section));
        }
        // Of an executable that is said when it comes into service.
        let plugins = self.files.iter().filter(|(_, known)| known.kind == Kind::Plugin);
        plugins.for_each(|(file, _)| self.tell_settings_without_effect(file, Kind::Plugin));
    }

    pub(super) fn tell_settings_without_effect(&self, file: &str, kind: Kind) {
        let plugin = plugin_of(file, kind);
        for sentence in sections::settings_without_effect(&self.plugins, &plugin, kind) {
            self.services.events.emit(Event::SettingWithoutEffect(sentence));
        }
    }
}

impl TasksFolder {
    /// What it has come to.
    pub fn snapshot(&self) -> FolderSnapshot {
        FolderSnapshot {
            folder: self.settings.path.clone(),
            identity: identity(&self.settings.path),
            trouble: self.unusable.as_ref().map(|(_, error)| error.to_string()),
            files: self.files.iter().map(|(file, known)| self.snapshot_of(file, known)).collect(),
            skipped: self.notices.skipped().map(skipped).collect(),
            draining: self.draining.iter().map(|generation| draining(generation)).collect(),
        }
    }

    fn snapshot_of(&self, file: &str, known: &KnownFile) -> FileSnapshot {
        let wait_until = |next: Instant| next.saturating_duration_since(Instant::now());
        FileSnapshot {
            file: file.to_owned(),
            plugin: plugin_of(file, known.kind),
            serving: known.serving.as_ref().map(|serving| {
                let generation = &serving.generation;
                ServingSnapshot {
                    build: generation.build().to_string(),
                    state: self.state_of(known, generation),
                    tasks: generation.tasks().iter().map(|task| task.name.clone()).collect(),
                    running_jobs: generation.in_flight(),
                    crashes: generation.crashes(),
                    trial: serving
                        .trial
                        .as_ref()
                        .map(|trial| TrialSnapshot { before: trial.before().to_string(), ends_in: trial.ends_in() }),
                }
            }),
            refused: known.state.refusal().map(|refusal| RefusalSnapshot {
                reason: refusal.reason.clone(),
                retry_in: known.state.relaunch().map(|relaunch| wait_until(relaunch.next)),
            }),
            starting: known.state.launch().is_some(),
            shadowed: self.notices.shadowed(file).cloned(),
            skipped: match &known.state {
                FileState::Skipped(reason) => Some(reason.clone()),
                _ => None,
            },
            rolled_back: known.given_up.map(|build| build.to_string()),
        }
    }

    fn state_of(&self, known: &KnownFile, generation: &Generation) -> ServingState {
        let is_executable = known.kind == Kind::Executable;
        match &*generation.availability().borrow() {
            _ if is_executable && self.unusable.as_ref().is_some_and(|(_, error)| error.takes_files_away()) => {
                ServingState::WaitingForFile
            }
            Availability::Serving => ServingState::Serving,
            Availability::Restarting | Availability::Stopped if is_executable => ServingState::WaitingForFile,
            Availability::Restarting | Availability::Stopped => ServingState::Restarting,
            Availability::Quarantined { reason } => ServingState::Quarantined { reason: reason.clone() },
        }
    }
}

impl TaskMap {
    /// Its tasks as plain values.
    pub fn snapshot(&self) -> TaskMapSnapshot {
        let task = |(name, task): (&str, &Task)| TaskSnapshot {
            task: name.to_owned(),
            plugin: task.generation.plugin().to_owned(),
            build: task.generation.build().to_string(),
        };
        TaskMapSnapshot { epoch: self.epoch(), tasks: self.iter().map(task).collect() }
    }
}

fn skipped((file, reason): (&str, &str)) -> SkippedSnapshot {
    SkippedSnapshot { file: file.to_owned(), reason: reason.to_owned() }
}

fn draining(generation: &Generation) -> DrainingSnapshot {
    DrainingSnapshot {
        plugin: generation.plugin().to_owned(),
        build: generation.build().to_string(),
        running_jobs: generation.in_flight(),
    }
}
