//! What others ask of a folder while it is watched: to tell what it has come to, or to go by other settings.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::{FolderSnapshot, TasksFolder, listing::Kind, sections};
use crate::{
    config::{LiveSettings, PLUGIN_SETTINGS, PluginLookup},
    events::Event,
    sync::{Mutex, PoisonError},
};

/// Something that is asked.
#[derive(Debug)]
pub(super) enum Request {
    Snapshot(oneshot::Sender<FolderSnapshot>),
    Settings(Box<LiveSettings>, oneshot::Sender<AppliedSettings>),
}

/// What other settings mean for the plugins and executables of the folder, by their names.
#[derive(Debug, Default)]
pub struct AppliedSettings(pub BTreeMap<String, AppliedTo>);

/// What other settings mean for one of them.
#[derive(Debug)]
pub struct AppliedTo {
    /// Those of its settings that are others now.
    pub keys: Vec<&'static str>,
    pub from: AppliesFrom,
}

/// From when on a plugin or executable goes by its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AppliesFrom {
    /// It is started anew now. If that fails, what served keeps serving under the settings of before.
    Restart,
    /// Each job of an executable is a process of its own.
    NextJob,
    /// It does not serve; it is tried again now.
    NextStart,
}

/// A way to ask, of which clones may be anywhere. What is asked before the folder is watched is answered when it is.
#[derive(Debug, Clone)]
pub struct FolderHandle {
    requests: mpsc::UnboundedSender<Request>,
    /// Taken by the folder that answers.
    waiting: Arc<Mutex<Option<mpsc::UnboundedReceiver<Request>>>>,
}

impl Default for FolderHandle {
    fn default() -> Self {
        let (requests, waiting) = mpsc::unbounded_channel();
        Self { requests, waiting: Arc::new(Mutex::new(Some(waiting))) }
    }
}

impl FolderHandle {
    /// What the folder has come to; `None` if it is not watched any more.
    pub async fn snapshot(&self) -> Option<FolderSnapshot> {
        let (reply, snapshot) = oneshot::channel();
        self.requests.send(Request::Snapshot(reply)).ok()?;
        snapshot.await.ok()
    }

    /// Has the folder go by other settings. Its path stays; plugins whose settings have changed are started anew.
    /// Returns what they mean for these; `None` if the folder is not watched any more.
    pub async fn apply(&self, settings: LiveSettings) -> Option<AppliedSettings> {
        let (reply, applied) = oneshot::channel();
        self.requests.send(Request::Settings(Box::new(settings), reply)).ok()?;
        applied.await.ok()
    }
}

impl TasksFolder {
    /// Answers what is asked by this handle. Only the first folder to say so does.
    pub fn answer(&mut self, handle: &FolderHandle) {
        let requests = handle.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
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
        self.tell_unknown_sections();
        applied
    }

    /// How the settings differ from those of before, for each file.
    fn applied_since(&self, before: &PluginLookup) -> AppliedSettings {
        let applied = self.files.iter().map(|(file, known)| {
            let plugin = sections::plugin_of(file, known.kind);
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
        let names: Vec<String> = self.files.iter().map(|(file, known)| sections::plugin_of(file, known.kind)).collect();
        for section in super::unknown_sections(&self.plugins, &names) {
            self.services.events.emit(Event::UnknownPluginSection(section));
        }
        // Of an executable that is said when it comes into service.
        let plugins = self.files.iter().filter(|(_, known)| known.kind == Kind::Plugin);
        plugins.for_each(|(file, _)| self.tell_settings_without_effect(file, Kind::Plugin));
    }

    pub(super) fn tell_settings_without_effect(&self, file: &str, kind: Kind) {
        let plugin = sections::plugin_of(file, kind);
        for sentence in sections::settings_without_effect(&self.plugins, &plugin, kind) {
            self.services.events.emit(Event::SettingWithoutEffect(sentence));
        }
    }
}
