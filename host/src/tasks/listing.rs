//! What lies in the tasks folder and the folders below it, by name: what could be a plugin or an executable, and what not.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, DirEntry, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{folder_error::FolderError, permissions::lax_folder, trust::is_signature_name};
use crate::plugin::MAX_NAME_CHARS;

/// What a file is taken for, which its name and its permissions decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Kind {
    /// A compiled plugin: its name ends in `.so`.
    #[default]
    Plugin,
    /// Any other file that its owner may execute.
    Executable,
}

/// All that is in the folder, by the path below it.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: BTreeMap<String, Candidate>,
    pub(super) skipped: BTreeMap<String, Skipped>,
    /// The folders below it that were looked into.
    pub(super) folders: Vec<PathBuf>,
}

/// A file that is to be looked at.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) kind: Kind,
    /// Why the folder that it is in would be refused, were the rules strict.
    pub(super) lax_folder: Option<String>,
}

/// Something that is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Skipped {
    pub(super) reason: String,
    /// It may have been meant to be.
    pub(super) unexpected: bool,
}

impl Listing {
    /// Lists the folder and those below it. Links to folders are not followed, and hidden ones not looked into.
    pub(super) fn of(root: &Path) -> Result<Self, FolderError> {
        let mut listing = Self::default();
        let mut waiting = vec![(String::new(), None)];
        while let Some((below, lax)) = waiting.pop() {
            let folder = root.join(&below);
            let unreadable =
                |error: io::Error| FolderError::Unreadable { folder: folder.clone(), reason: error.to_string() };
            let entries = match fs::read_dir(&folder) {
                // Removed since it was seen.
                Err(error) if !below.is_empty() && is_gone(&error) => continue,
                other => other.map_err(unreadable)?,
            };
            for entry in entries {
                let entry = entry.map_err(unreadable)?;
                let Some(name) = listing.name_of(&entry, &below) else { continue };
                if let Some(folder) = listing.take(&entry, name, &below, lax.as_ref()) {
                    waiting.push(folder);
                }
            }
            if !below.is_empty() {
                listing.folders.push(folder);
            }
        }
        listing.folders.sort();
        Ok(listing)
    }

    /// The name, unless it is a hidden one, which copying tools and Kubernetes give to what is not meant to be seen.
    fn name_of(&mut self, entry: &DirEntry, below: &str) -> Option<String> {
        match entry.file_name().into_string() {
            Ok(name) => Some(name).filter(|name| !name.starts_with('.')),
            Err(name) => {
                let reason = "its name is not UTF-8, as a task's name must be: rename it";
                self.skip(path_of(below, &name.to_string_lossy()), reason, true);
                None
            }
        }
    }

    /// Sorts an entry in; a folder is given back, with why it would be refused.
    fn take(
        &mut self,
        entry: &DirEntry,
        name: String,
        below: &str,
        lax: Option<&String>,
    ) -> Option<(String, Option<String>)> {
        let path = path_of(below, &name);
        let kind = entry.file_type().ok()?;
        if kind.is_dir() && !is_plugin_name(&name) {
            if !is_word(&name) {
                self.skip(path, "a folder's name may have letters, digits, - and _: rename it", true);
                return None;
            }
            let lax = lax.cloned().or_else(|| lax_folder(&entry.path(), &entry.metadata().ok()?));
            return Some((path, lax));
        }
        let candidate = |kind| Candidate { kind, lax_folder: lax.cloned() };
        if is_plugin_name(&name) {
            self.files.insert(path, candidate(Kind::Plugin));
            return None;
        }
        if is_signature_name(&name) {
            self.skip(path, "is the signature of the file beside it", false);
            return None;
        }
        // Unlike that of the entry, this follows a link.
        match fs::metadata(entry.path()) {
            Ok(metadata) => match not_executable(&name, &path, &metadata) {
                None => drop(self.files.insert(path, candidate(Kind::Executable))),
                Some((reason, unexpected)) => self.skip(path, reason, unexpected),
            },
            Err(_) if kind.is_symlink() => self.skip(path, "is a link that leads nowhere", false),
            // Removed since it was listed.
            Err(_) => {}
        }
        None
    }

    fn skip(&mut self, path: String, reason: impl Into<String>, unexpected: bool) {
        self.skipped.insert(path, Skipped { reason: reason.into(), unexpected });
    }
}

/// Whether a file of this name is meant to be loaded as a plugin: hidden files are what copying tools write first.
pub(super) fn is_plugin_name(name: &str) -> bool {
    name.ends_with(".so") && !name.starts_with('.') && name.len() > ".so".len()
}

/// The name of an executable's task: its path without what follows the first dot of the file's name.
pub(super) fn identifier(path: &str) -> &str {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    path[name..].find('.').map_or(path, |dot| &path[..name + dot])
}

/// Whether its owner may execute it, as far as permissions go.
pub(super) fn is_executable(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.mode() & 0o100 != 0
}

/// Why a file is no executable with a task, and whether that may surprise.
fn not_executable(name: &str, path: &str, metadata: &Metadata) -> Option<(String, bool)> {
    let quiet = |reason: &str| Some((reason.to_owned(), false));
    if metadata.is_dir() {
        return quiet("is a link to a folder, which is not looked into");
    }
    if !metadata.is_file() {
        return quiet("is not a file");
    }
    if !is_executable(metadata) {
        return quiet("is neither a plugin (.so) nor executable; if it is to be a task, chmod +x it");
    }
    if !name.split('.').all(is_word) {
        let rule = "the name of an executable file may have letters, digits, - and _, with dots in between: rename it";
        return Some((rule.to_owned(), true));
    }
    let length = identifier(path).chars().count();
    (length > MAX_NAME_CHARS).then(|| {
        (format!("its task's name would have {length} characters; the database takes up to {MAX_NAME_CHARS}"), true)
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn path_of(below: &str, name: &str) -> String {
    if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The last part of a path, where events name one.
pub(super) fn is_plugin_path(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(is_plugin_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_and_unfinished_files_are_no_plugins() {
        assert!(is_plugin_name("libx.so") && is_plugin_name("x.so"));
        for name in [".libx.so.new", ".libx.so", ".so", "..data", "libx.so.tmp", "libx.so.1", "README.md", "libx.dylib"]
        {
            assert!(!is_plugin_name(name), "{name}");
        }
    }

    #[test]
    fn a_task_is_named_by_the_path_up_to_the_first_dot_of_the_file() {
        for (path, name) in [
            ("send", "send"),
            ("send.sh", "send"),
            ("send.test.sh", "send"),
            ("mail/send.sh", "mail/send"),
            ("a/b/c", "a/b/c"),
        ] {
            assert_eq!(identifier(path), name);
        }
    }
}
