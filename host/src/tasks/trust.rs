//! Which files may be loaded beside what their permissions say: those that an allow-list has, and those that somebody has
//! signed, where either is asked for. Both are about the very bytes that are loaded.

use std::{fs, io, path::Path, sync::Arc};

use minisign_verify::{Error as SignatureError, PublicKey, Signature};

use super::allow_list::{AllowList, read_small};
use crate::{
    config::{FolderSettings, public_key},
    plugin::{BuildId, FileKey},
};

/// What a signature's file has in its name behind that of the file that it is of.
const SIGNATURE: &str = ".minisig";
/// More than any signature has.
const LARGEST_SIGNATURE: u64 = 16 << 10;
const HOW_TO_SIGN: &str = "sign it with `minisign -Sm` and one of the trusted keys";

/// Whom to believe. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    list: Option<AllowList>,
    /// Any of them will do. None: nothing needs a signature. The error is which one is no key.
    keys: Result<Arc<[PublicKey]>, String>,
}

impl Trust {
    pub(super) fn of(settings: &FolderSettings) -> Self {
        Self {
            list: settings.manifest.as_ref().map(|path| AllowList::new(path, settings.strict_permissions)),
            keys: settings.trusted_keys.iter().map(|text| public_key(text)).collect(),
        }
    }

    /// Reads the allow-list again, and says whether it has changed.
    pub(super) fn refresh(&mut self) -> bool {
        self.list.as_mut().is_some_and(AllowList::refresh)
    }

    /// The allow-list, with why it cannot be used, if so, and why it could not, were the rules strict.
    pub(super) fn list(&self) -> Option<(&Path, Option<&str>, Option<&str>)> {
        self.list.as_ref().map(|list| (list.path(), list.problem(), list.warning.as_deref()))
    }

    /// The present state of a file's signature, if that matters.
    pub(super) fn signature_of(&self, file: &Path) -> Option<FileKey> {
        if self.keys.as_ref().is_ok_and(|keys| keys.is_empty()) {
            return None;
        }
        fs::metadata(signature_path(file)).ok().map(|metadata| FileKey::of(&metadata))
    }

    /// Why a file with these bytes may not be loaded. It is listed under `name`, which is its path below the folder.
    pub(super) fn refusal(&self, file: &Path, name: &str, bytes: &[u8], build: BuildId) -> Option<String> {
        let listed = self.list.as_ref().and_then(|list| list.refusal(name, build));
        listed.or_else(|| self.verify(file, bytes).err())
    }

    /// Whether there is an allow-list that does not have this build any more.
    pub(super) fn is_delisted(&self, name: &str, build: BuildId) -> bool {
        self.list.as_ref().is_some_and(|list| list.refusal(name, build).is_some())
    }

    fn verify(&self, file: &Path, bytes: &[u8]) -> Result<(), String> {
        let keys = match &self.keys {
            Ok(keys) if keys.is_empty() => return Ok(()),
            Ok(keys) => keys,
            Err(problem) => return Err(format!("is not loaded, because tasks.trusted_keys {problem}")),
        };
        let path = signature_path(file);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (text, _) = read_small(&path, LARGEST_SIGNATURE).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("has no signature: {HOW_TO_SIGN}, and put {name} beside it"),
            _ => format!("has a signature {name} that cannot be read: {error}"),
        })?;
        check_signature(keys, &text, &name, bytes)
    }
}

/// Why the text of a signature, which is called `name`, does not show that one of the keys' owners has signed these bytes.
pub(super) fn check_signature(keys: &[PublicKey], text: &str, name: &str, bytes: &[u8]) -> Result<(), String> {
    let signature = Signature::decode(text)
        .map_err(|error| format!("has a signature {name} that is none of minisign ({error}): {HOW_TO_SIGN}"))?;
    let verdicts: Vec<_> = keys.iter().map(|key| key.verify(bytes, &signature, false)).collect();
    if verdicts.iter().any(Result::is_ok) {
        return Ok(());
    }
    let found = if verdicts.iter().any(|verdict| matches!(verdict, Err(SignatureError::UnsupportedLegacyMode))) {
        "is of minisign's old kind"
    } else if verdicts.iter().all(|verdict| matches!(verdict, Err(SignatureError::UnexpectedKeyId))) {
        "is by none of the keys in tasks.trusted_keys"
    } else {
        "is not of this file's contents"
    };
    Err(format!("has a signature {name} that {found}: {HOW_TO_SIGN}"))
}

/// Whether a file of this name is another one's signature.
pub(super) fn is_signature_name(name: &str) -> bool {
    name.ends_with(SIGNATURE)
}

fn signature_path(file: &Path) -> std::path::PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(SIGNATURE);
    path.into()
}
