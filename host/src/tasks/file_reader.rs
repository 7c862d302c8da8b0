//! Reads one file of the folder, library or executable, and gives a finding if its contents are news.
//!
//! It remembers what the last finding was about and nothing of what became of it, which is the reloader's.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use super::{
    artifact::{self, Artifact, Unfit},
    folder::{Folder, OpenFile},
    folder_error::FileError,
    listing::{Candidate, Kind, identifier},
    program::{self, Unrunnable},
    trust::Trust,
};
use crate::{
    parts::message_of,
    plugin::{BuildId, ExecutableFile, FileKey, Image},
};

/// An unfinished file is read again after this wait, which doubles each time …
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// … until it has been unfinished for this long without any change.
const UNFINISHED_FOR: Duration = Duration::from_secs(5);

/// News of one file.
#[derive(Debug)]
pub(super) enum Finding {
    /// Its contents, which differ from those of the last finding or were asked for.
    Contents(Contents),
    /// The contents of the last finding, in a new state of the file.
    Touched(FileKey),
    /// It cannot be read, for this reason.
    Unreadable(String),
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) build: BuildId,
    pub(super) key: FileKey,
    /// Contents of the last finding count as news, too.
    pub(super) asked: bool,
    pub(super) loadable: Result<Loadable, Fault>,
    /// Why the file would be refused under strict permissions.
    pub(super) warning: Option<String>,
}

/// Verified contents that may be loaded.
#[derive(Debug)]
pub(super) enum Loadable {
    Plugin(Image),
    Executable(ExecutableFile),
}

/// Why contents are not loaded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// They end too early, as those of a file do that is being written.
    Short(String),
    /// An executable that is a compiled library need not be meant to run.
    Library(String),
    Unfit(String),
}

/// Contents that passed their verification.
pub(super) struct Verified {
    /// How many bytes, from the start, the loader needs.
    pub(super) loadable: usize,
    /// They go on to their proper end.
    pub(super) whole: bool,
}

/// What files are read with.
pub(super) struct ReadBy<'a> {
    pub(super) folder: &'a Folder,
    pub(super) trust: &'a Trust,
    /// The allow-list has changed since the last scan.
    pub(super) list_changed: bool,
    pub(super) settle: Duration,
}

/// What one file's reader remembers.
#[derive(Debug, Default)]
pub(super) struct FileReader {
    /// The state of the file at the last finding, unless a later change might not show in it.
    key: Option<FileKey>,
    /// The contents of the last finding; none if they are to be reported again.
    build: Option<BuildId>,
    /// The reason in the last finding, if that was one.
    reported: Option<String>,
    /// Refused for lack of trust: the state of its signature then, and whether a change of that would show.
    untrusted: Option<(Option<FileKey>, bool)>,
    /// The next contents are reported as asked for.
    asked: bool,
    /// A link to a file elsewhere: no event reports its changes.
    outside: bool,
    unfinished: Option<Unfinished>,
}

/// A file that is probably still being written.
#[derive(Debug, Clone, Copy)]
struct Unfinished {
    key: Option<FileKey>,
    since: Instant,
    wait: Duration,
    next: Instant,
}

impl FileReader {
    /// Reads the file if it may have changed or if that is asked for.
    pub(super) fn read(&mut self, name: &str, candidate: &Candidate, by: &ReadBy<'_>, asked: bool) -> Option<Finding> {
        if asked || self.may_be_trusted_now(name, by) {
            self.forget();
            self.asked = true;
        }
        let finding = contained(|| self.look(name, candidate, by)).unwrap_or_else(|reason| {
            let asked = self.asked;
            // Once it can be read, its contents are reported, even those that were reported before.
            *self = Self { outside: self.outside, asked, reported: Some(reason.clone()), ..Self::default() };
            Some(Finding::Unreadable(reason))
        });
        if let Some(Finding::Contents(contents)) = &finding {
            self.asked = false;
            self.reported = contents.loadable.as_ref().err().map(|fault| fault.reason().to_owned());
        }
        finding
    }

    /// When an unfinished file is to be read again.
    pub(super) fn next_read(&self) -> Option<Instant> {
        self.unfinished.map(|unfinished| unfinished.next)
    }

    pub(super) fn is_outside(&self) -> bool {
        self.outside
    }

    /// Forgets everything but that a file was `asked` for.
    pub(super) fn reset(&mut self, asked: bool) {
        *self = Self { asked: self.asked || asked, ..Self::default() };
    }

    /// The next reading gives a finding, whatever it finds.
    fn forget(&mut self) {
        (self.key, self.build, self.reported) = (None, None, None);
    }

    fn look(&mut self, name: &str, candidate: &Candidate, by: &ReadBy<'_>) -> Result<Option<Finding>, String> {
        let mut file = match by.folder.open_file(name, candidate) {
            Ok(file) => file,
            // Cargo, for one, removes the target of a link before it makes it again.
            Err(error @ FileError::DeadLink(_)) => return self.wait_for_writer(None, error.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        self.outside = file.outside;
        if self.key == Some(file.key) {
            return Ok(None);
        }
        // Nothing in a script marks its end, so one that was written lately is left alone for a while.
        if candidate.kind == Kind::Executable && !self.has_settled(file.key, by.settle) {
            return Ok(None);
        }
        let bytes = match file.read() {
            Ok(bytes) => bytes,
            Err(error @ FileError::Changing) => return self.wait_for_writer(Some(file.key), error.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        let build = artifact::hash(&bytes);
        if self.build == Some(build) {
            self.found(&file, build);
            return Ok(Some(Finding::Touched(file.key)));
        }
        let verified = verify(candidate.kind, &bytes);
        let unfinished = match &verified {
            // Contents without a proper end are loaded after a while.
            Ok(verified) => (!verified.whole).then_some(""),
            Err(Fault::Short(reason)) => Some(reason.as_str()),
            Err(_) => None,
        };
        if unfinished.is_some_and(|reason| self.is_unfinished(Some(file.key), reason)) {
            return Ok(None);
        }
        let loadable = match verified.map(|verified| (verified, self.refusal_of_trust(name, &bytes, build, by))) {
            Err(fault) => Err(fault),
            Ok((_, Some(reason))) => Err(Fault::Unfit(reason)),
            Ok((verified, None)) if candidate.kind == Kind::Plugin => Ok(Loadable::Plugin(
                Image::seal(name, build, &bytes[..verified.loadable])
                    .map_err(|error| format!("cannot be copied into memory: {error}"))?,
            )),
            Ok(_) => {
                let (identifier, path) = (identifier(name).to_owned(), by.folder.path_of(name));
                Ok(Loadable::Executable(ExecutableFile { identifier, path, build, key: file.key }))
            }
        };
        self.found(&file, build);
        let (key, asked, warning) = (file.key, self.asked, file.warning);
        Ok(Some(Finding::Contents(Contents { build, key, asked, loadable, warning })))
    }

    fn found(&mut self, file: &OpenFile, build: BuildId) {
        (self.key, self.build, self.unfinished) = (Some(file.key).filter(FileKey::tells), Some(build), None);
    }

    /// Why these contents may not be loaded under the allow-list and the trusted keys.
    fn refusal_of_trust(&mut self, name: &str, bytes: &[u8], build: BuildId, by: &ReadBy<'_>) -> Option<String> {
        let path = by.folder.path_of(name);
        // Before the signature is read, so that a change meanwhile shows.
        let signature = by.trust.signature_of(&path);
        let refusal = by.trust.refusal(&path, name, bytes, build);
        self.untrusted = refusal.is_some().then_some((signature, signature.is_none_or(|key| key.tells())));
        refusal
    }

    /// Whether a file that was refused for lack of trust may be trusted by now.
    fn may_be_trusted_now(&self, name: &str, by: &ReadBy<'_>) -> bool {
        let signature = || by.trust.signature_of(&by.folder.path_of(name));
        self.untrusted.is_some_and(|(before, tells)| by.list_changed || !tells || before != signature())
    }

    /// Whether a state of the file has lasted, by its own clock or by the host's; else it is read again later.
    fn has_settled(&mut self, key: FileKey, settle: Duration) -> bool {
        let since = self.unfinished.filter(|before| before.key == Some(key)).map(|before| before.since);
        if key.untouched_for() >= settle || since.is_some_and(|since| since.elapsed() >= settle) {
            return true;
        }
        let since = since.unwrap_or_else(Instant::now);
        self.unfinished = Some(Unfinished { key: Some(key), since, wait: FIRST_WAIT, next: since + settle });
        false
    }

    /// Has the file be read again later; the error is the reason, once it has lasted.
    fn wait_for_writer(&mut self, key: Option<FileKey>, reason: String) -> Result<Option<Finding>, String> {
        if self.is_unfinished(key, &reason) { Ok(None) } else { Err(reason) }
    }

    /// Whether a writer gets more time. It does not if this reason was reported already.
    fn is_unfinished(&mut self, key: Option<FileKey>, reason: &str) -> bool {
        if self.reported.as_deref() == Some(reason) {
            return false;
        }
        let now = Instant::now();
        let (since, wait) = match self.unfinished {
            Some(before) if before.key != key => (now, FIRST_WAIT),
            Some(Unfinished { since, .. }) if now - since >= UNFINISHED_FOR => return false,
            // Scans for other reasons than the end of the wait do not lengthen it.
            Some(Unfinished { since, wait, next, .. }) => (since, if now < next { wait } else { wait * 2 }),
            None => (now, FIRST_WAIT),
        };
        let next = (now + wait).min(since + UNFINISHED_FOR);
        self.unfinished = Some(Unfinished { key, since, wait, next });
        true
    }
}

impl Fault {
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Short(reason) | Self::Library(reason) | Self::Unfit(reason) => reason,
        }
    }
}

/// Looks at contents before anything of them runs.
pub(super) fn verify(kind: Kind, bytes: &[u8]) -> Result<Verified, Fault> {
    match kind {
        Kind::Plugin => match artifact::verify(bytes) {
            Ok(Artifact { loadable, whole }) => Ok(Verified { loadable, whole }),
            Err(unfit @ (Unfit::Empty | Unfit::Truncated { .. })) => Err(Fault::Short(unfit.to_string())),
            Err(unfit) => Err(Fault::Unfit(unfit.to_string())),
        },
        Kind::Executable => match program::verify(bytes) {
            Ok(()) => Ok(Verified { loadable: bytes.len(), whole: true }),
            Err(unfit @ (Unrunnable::Empty | Unrunnable::Truncated { .. })) => Err(Fault::Short(unfit.to_string())),
            Err(unfit @ Unrunnable::Library) => Err(Fault::Library(unfit.to_string())),
            Err(unfit) => Err(Fault::Unfit(unfit.to_string())),
        },
    }
}

/// Reads a file. A panic makes it unreadable, and costs neither the other files nor the host.
fn contained<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        Err(format!("cannot be looked at: internal error of this host: {}", message_of(&*panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_a_file_is_read_makes_it_unreadable() {
        let refused = contained::<()>(|| panic!("what a file")).unwrap_err();
        assert!(refused.ends_with("internal error of this host: what a file"), "{refused}");
    }
}
