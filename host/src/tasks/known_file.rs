//! What is known of one file of the folder, and what its present contents call for.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::{
    artifact::{self, Unfit},
    folder::{FileError, Folder, OpenFile},
    listing::{Candidate, Kind, identifier},
    program::{self, Unrunnable},
    relaunch::Relaunch,
    roll_back::Trial,
    trust::Trust,
};
use crate::plugin::{Availability, BuildId, ExecutableFile, FileKey, Generation, Image, TaskSpec};

/// A file that looks unfinished is looked at again after this long, and each time after twice as long …
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// … until it has looked unfinished for this long without any change.
const UNFINISHED_FOR: Duration = Duration::from_secs(5);

/// What is known of a file.
#[derive(Debug, Default)]
pub(super) struct KnownFile {
    pub(super) kind: Kind,
    /// The state that was last dealt with, if a change of it would show.
    pub(super) key: Option<FileKey>,
    /// The build that is being launched, served or refused.
    pub(super) build: Option<BuildId>,
    pub(super) serving: Option<Serving>,
    pub(super) refused: Option<String>,
    /// An executable that is a library, and is left alone.
    pub(super) is_library: bool,
    /// Refused because of another file, so that a change of that is a reason to try again.
    pub(super) conflict: bool,
    /// Refused because nobody vouches for it, with the state of its signature then, and whether a change of that would show.
    untrusted: Option<(Option<FileKey>, bool)>,
    /// The refused build is to be tried again.
    pub(super) retry: bool,
    /// The executable is to be taken into service anew, with other settings.
    pub(super) restart: bool,
    /// The build that did not start and is to be launched again.
    pub(super) relaunch: Option<Relaunch>,
    /// What the build that serves has to prove.
    pub(super) trial: Option<Trial>,
    /// The build before, once what the file holds has failed to.
    pub(super) goes_back_to: Option<BuildId>,
    /// Since when the file has not been listed.
    pub(super) gone_since: Option<Instant>,
    /// A link to a file elsewhere, of whose changes no event tells.
    pub(super) outside: bool,
    unfinished: Option<Unfinished>,
}

/// The build that a file's tasks run on.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) generation: Arc<Generation>,
    _follow: AbortOnDropHandle<()>,
}

/// A file that somebody seems to be still writing.
#[derive(Debug, Clone, Copy)]
struct Unfinished {
    key: Option<FileKey>,
    since: Instant,
    wait: Duration,
    next_look: Instant,
}

impl Serving {
    /// `changed` hears of each change of the build's availability.
    pub(super) fn new(generation: Arc<Generation>, changed: Arc<Notify>) -> Self {
        let mut availability = generation.availability();
        let follow = tokio::spawn(async move {
            while availability.changed().await.is_ok() {
                changed.notify_one();
            }
        });
        Self { generation, _follow: AbortOnDropHandle::new(follow) }
    }
}

impl KnownFile {
    /// The tasks of the build that serves.
    pub(super) fn tasks(&self) -> &[TaskSpec] {
        self.serving.as_ref().map_or(&[], |serving| serving.generation.tasks())
    }

    /// Whether the build that should serve has crashed too often.
    pub(super) fn is_quarantined(&self) -> bool {
        let availability = self.serving.as_ref().map(|serving| serving.generation.availability());
        availability.is_some_and(|now| matches!(*now.borrow(), Availability::Quarantined { .. }))
    }

    /// The image of a file whose contents are new, and what is lax about its permissions; the error is why it is refused.
    pub(super) fn read(
        &mut self,
        folder: &Folder,
        name: &str,
        candidate: &Candidate,
        trust: &Trust,
    ) -> Result<Option<(Image, Option<String>)>, String> {
        // Whatever comes of it, one retry is one look.
        let retry = std::mem::take(&mut self.retry);
        let mut file = match folder.open_file(name, candidate) {
            Ok(file) => file,
            // Cargo, for one, removes the target of a link before it makes it again.
            Err(error @ FileError::DeadLink(_)) => return self.wait_for_writer(None, error.to_string()),
            Err(error) => {
                self.forget_refused_contents();
                return Err(error.to_string());
            }
        };
        self.outside = file.outside;
        if self.key == Some(file.key) && !retry {
            // It could not be opened for a while.
            self.is_back();
            return Ok(None);
        }
        let bytes = match file.read() {
            Ok(bytes) => bytes,
            Err(error @ FileError::Changing) => return self.wait_for_writer(Some(file.key), error.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        let build = artifact::hash(&bytes);
        if self.is_dealt_with(build, retry) {
            self.dealt_with(&file, build);
            return Ok(None);
        }
        let artifact = match artifact::verify(&bytes, build) {
            Ok(artifact) => artifact,
            // A file is empty first, then short; whoever writes it may need a while.
            Err(unfit @ (Unfit::Empty | Unfit::Truncated { .. })) => {
                self.wait_for_writer::<()>(Some(file.key), unfit.to_string())
                    .inspect_err(|_| self.dealt_with(&file, build))?;
                return Ok(None);
            }
            Err(unfit) => {
                self.dealt_with(&file, build);
                return Err(unfit.to_string());
            }
        };
        // After a while, what can be loaded is loaded.
        if !artifact.whole && self.wait_for_writer::<()>(Some(file.key), String::new()).is_ok() {
            return Ok(None);
        }
        self.dealt_with(&file, build);
        self.vouched_for(trust, &folder.path_of(name), name, &bytes, build)?;
        match Image::seal(name, artifact.build, &bytes[..artifact.loadable]) {
            Ok(image) => Ok(Some((image, file.warning))),
            Err(error) => {
                // Memory or descriptors may be there at the next look.
                (self.key, self.build) = (None, None);
                Err(format!("cannot be copied into memory: {error}"))
            }
        }
    }

    /// The same for an executable. Nothing in a script tells where it ends, so what was written lately is left alone for as
    /// long as `settle`.
    pub(super) fn read_executable(
        &mut self,
        folder: &Folder,
        name: &str,
        candidate: &Candidate,
        (trust, settle): (&Trust, Duration),
    ) -> Result<Option<(ExecutableFile, Option<String>)>, String> {
        let retry = std::mem::take(&mut self.retry);
        let mut file = match folder.open_file(name, candidate) {
            Ok(file) => file,
            Err(error @ FileError::DeadLink(_)) => return self.wait_for_writer(None, error.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        self.outside = file.outside;
        let unchanged = self.key == Some(file.key) && !retry && !self.restart && !self.is_in_doubt();
        if unchanged || !self.has_settled(file.key, settle) {
            return Ok(None);
        }
        let bytes = match file.read() {
            Ok(bytes) => bytes,
            Err(error @ FileError::Changing) => return self.wait_for_writer(Some(file.key), error.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        let build = artifact::hash(&bytes);
        self.is_library = false;
        if self.is_dealt_with(build, retry) {
            if let Some(serving) = &self.serving {
                serving.generation.verify_again(file.key);
            }
            self.dealt_with(&file, build);
            return Ok(None);
        }
        match program::verify(&bytes) {
            Ok(()) => {}
            Err(unfit @ (Unrunnable::Empty | Unrunnable::Truncated { .. })) => {
                self.wait_for_writer::<()>(Some(file.key), unfit.to_string())
                    .inspect_err(|_| self.dealt_with(&file, build))?;
                return Ok(None);
            }
            Err(unfit) => {
                self.is_library = unfit == Unrunnable::Library;
                self.dealt_with(&file, build);
                return Err(unfit.to_string());
            }
        }
        self.dealt_with(&file, build);
        let (identifier, path) = (identifier(name).to_owned(), folder.path_of(name));
        self.vouched_for(trust, &path, name, &bytes, build)?;
        Ok(Some((ExecutableFile { identifier, path, build, key: file.key }, file.warning)))
    }

    /// Whether these bytes may be loaded; the error is why not.
    fn vouched_for(
        &mut self,
        trust: &Trust,
        path: &Path,
        name: &str,
        bytes: &[u8],
        build: BuildId,
    ) -> Result<(), String> {
        // Before it is read, so that a change meanwhile shows.
        let signature = trust.signature_of(path);
        let signature = (signature, signature.is_none_or(|key| key.tells()));
        let refusal = trust.refusal(path, name, bytes, build);
        self.untrusted = refusal.is_some().then_some(signature);
        refusal.map_or(Ok(()), Err)
    }

    /// Whether somebody may vouch for it now who did not before. `changed` says that what is trusted has changed.
    pub(super) fn may_be_vouched_for(&self, trust: &Trust, changed: bool, path: &Path) -> bool {
        self.untrusted.is_some_and(|(before, tells)| changed || !tells || before != trust.signature_of(path))
    }

    /// Whether the executable that serves was found changed when a job was to begin.
    fn is_in_doubt(&self) -> bool {
        let availability = self.serving.as_ref().map(|serving| serving.generation.availability());
        self.kind == Kind::Executable && availability.is_some_and(|now| *now.borrow() == Availability::Restarting)
    }

    /// Whether a state has lasted, by the file's own clock or by ours; else it is to be looked at again.
    fn has_settled(&mut self, key: FileKey, settle: Duration) -> bool {
        let since = self.unfinished.filter(|before| before.key == Some(key)).map(|before| before.since);
        if key.untouched_for() >= settle || since.is_some_and(|since| since.elapsed() >= settle) {
            return true;
        }
        let since = since.unwrap_or_else(Instant::now);
        self.unfinished = Some(Unfinished { key: Some(key), since, wait: FIRST_LOOK, next_look: since + settle });
        false
    }

    /// Whether a build is already launched, served or refused: the file was touched, or written again with the same
    /// contents, or put back to what serves.
    fn is_dealt_with(&mut self, build: BuildId, retry: bool) -> bool {
        let restart = std::mem::take(&mut self.restart);
        let serves = self.serving.as_ref().is_some_and(|serving| serving.generation.build() == build);
        let serves = serves && !restart && !(retry && self.is_quarantined());
        let known = self.build == Some(build) && !retry && !restart;
        if serves {
            self.forget_refusal(build);
        }
        serves || known
    }

    /// If what serves is refused for another reason than its contents, such as its permissions, it is to be looked at anew
    /// once that reason is gone.
    pub(super) fn forget_contents_that_serve(&mut self) {
        if self.serving.as_ref().is_some_and(|serving| self.build == Some(serving.generation.build())) {
            (self.key, self.build) = (None, None);
        }
    }

    /// What was refused is looked at anew once it can be opened again, so that the reason is the present one. But what a build
    /// was rolled back from stays out of service.
    fn forget_refused_contents(&mut self) {
        let serves = self.serving.as_ref().is_some_and(|serving| self.build == Some(serving.generation.build()));
        if self.refused.is_some() && self.goes_back_to.is_none() && !serves {
            (self.key, self.build) = (None, None);
        }
    }

    /// Takes a refusal back if the file holds what serves.
    fn is_back(&mut self) {
        let serving = self.serving.as_ref().map(|serving| serving.generation.build());
        if let Some(build) = serving.filter(|build| self.build == Some(*build)) {
            self.forget_refusal(build);
        }
    }

    /// The file holds this build, and that serves. But if it did not start anew, that is still to be said.
    fn forget_refusal(&mut self, build: BuildId) {
        if self.relaunch.as_ref().is_none_or(|relaunch| relaunch.build() != build) {
            (self.refused, self.conflict, self.relaunch) = (None, false, None);
        }
    }

    fn dealt_with(&mut self, file: &OpenFile, build: BuildId) {
        self.key = Some(file.key).filter(FileKey::tells);
        if self.build.replace(build) != Some(build) {
            (self.goes_back_to, self.relaunch) = (None, None);
        }
        self.unfinished = None;
    }

    /// Looks again later, or after a while takes the file for what it is.
    fn wait_for_writer<T>(&mut self, key: Option<FileKey>, reason: String) -> Result<Option<T>, String> {
        let now = Instant::now();
        if self.refused.as_ref() == Some(&reason) {
            return Err(reason);
        }
        let (since, wait) = match self.unfinished {
            Some(before) if before.key != key => (now, FIRST_LOOK),
            Some(Unfinished { since, .. }) if now - since >= UNFINISHED_FOR => return Err(reason),
            // Other events than the timer's may be the reason for this look, and say nothing of how long to wait.
            Some(Unfinished { since, wait, next_look, .. }) => (since, if now < next_look { wait } else { wait * 2 }),
            None => (now, FIRST_LOOK),
        };
        let next_look = (now + wait).min(since + UNFINISHED_FOR);
        self.unfinished = Some(Unfinished { key, since, wait, next_look });
        Ok(None)
    }

    /// Says whether this refusal is news.
    pub(super) fn refuse(&mut self, reason: &str, conflict: bool) -> bool {
        (self.conflict, self.unfinished, self.relaunch) = (conflict, None, None);
        let news = self.refused.as_deref() != Some(reason);
        self.refused = Some(reason.to_owned());
        news
    }

    /// When it is to be looked at again, if it looked unfinished or is in doubt.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let look = self.unfinished.map(|unfinished| unfinished.next_look);
        look.or_else(|| self.is_in_doubt().then(Instant::now))
    }
}
