//! What others ask of a folder while it is watched: to tell what it has come to, or to go by other settings.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{mpsc, oneshot};

use super::FolderSnapshot;
use crate::{
    config::LiveSettings,
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
    /// For the folder that answers; only the first gets them.
    pub(super) fn take_requests(&self) -> Option<mpsc::UnboundedReceiver<Request>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
