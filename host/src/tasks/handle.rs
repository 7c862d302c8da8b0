//! What others ask of a folder while it is watched: to tell what it has come to, or to go by other settings.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{FolderSnapshot, TasksFolder, trust::Trust};
use crate::{
    config::{LiveSettings, PluginLookup},
    events::Event,
    plugin::Generation,
    sync::{Mutex, PoisonError},
};

/// Something that is asked.
#[derive(Debug)]
pub(super) enum Request {
    Snapshot(oneshot::Sender<FolderSnapshot>),
    Settings(Box<LiveSettings>),
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
    pub fn apply(&self, settings: LiveSettings) {
        // A folder that is not watched any more needs none.
        let _ = self.requests.send(Request::Settings(Box::new(settings)));
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
            Request::Settings(settings) => {
                self.apply(*settings);
                true
            }
        }
    }

    fn apply(&mut self, LiveSettings { mut folder, plugins }: LiveSettings) {
        folder.path.clone_from(&self.settings.path);
        if folder != self.settings {
            self.trust = Trust::of(&folder);
            self.settings = folder;
        }
        let before = std::mem::replace(&mut self.plugins, plugins);
        self.restart_where_changed(&before);
        self.tell_unknown_sections();
    }

    /// Starts the builds anew whose settings have changed. Those that serve finish their jobs under the old ones. Launches that
    /// are under way are looked at when they end.
    fn restart_where_changed(&mut self, before: &PluginLookup) {
        let plugins = &self.plugins;
        let has_changed = |one: &Generation| before.get(one.plugin()) != plugins.get(one.plugin());
        let mut images = Vec::new();
        for (name, known) in &mut self.files {
            let Some(serving) = known.serving.as_ref().filter(|serving| has_changed(&serving.generation)) else {
                continue;
            };
            match serving.generation.image() {
                Some(image) => images.push((name.clone(), Arc::clone(image))),
                None => known.restart = true,
            }
        }
        for (name, generation, _) in self.held.extract_if(.., |(_, held, _)| has_changed(held)) {
            images.extend(generation.image().map(|image| (name, Arc::clone(image))));
            self.outgoing.push(generation);
        }
        for (name, image) in images {
            self.launch_again(&name, image);
        }
    }

    /// Says of each section of the settings that no file is its plugin.
    pub(super) fn tell_unknown_sections(&self) {
        let names: Vec<String> =
            self.files.iter().map(|(file, known)| super::sections::plugin_of(file, known.kind)).collect();
        for section in super::unknown_sections(&self.plugins, &names) {
            self.services.events.emit(Event::UnknownPluginSection(section));
        }
    }
}
