//! The allow-list: a file as `sha256sum` writes it, with what may be loaded.

use std::{
    collections::BTreeMap,
    fs::{File, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{Mode, OFlags};

use super::permissions::{unsafe_file_at, unsafe_folder};
use crate::plugin::BuildId;

/// More than any list has, so that a wrong path cannot fill the memory.
const LARGEST: u64 = 16 << 20;

/// What may be loaded: the hashes of each name.
pub(super) type Listed = BTreeMap<String, Vec<BuildId>>;

/// An allow-list, as it was read last. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct AllowList {
    path: PathBuf,
    /// Refuse to go by what others may write to.
    strict: bool,
    /// The error is why it cannot be used.
    listed: Result<Arc<Listed>, String>,
    /// Why it could not be used, were the rules strict.
    pub(super) warning: Option<String>,
}

impl AllowList {
    pub(super) fn new(path: &Path, strict: bool) -> Self {
        Self { path: path.to_owned(), strict, listed: Ok(Arc::default()), warning: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it, and says whether it has changed.
    pub(super) fn refresh(&mut self) -> bool {
        let now = self.read();
        let changed = now != self.listed;
        self.listed = now;
        changed
    }

    /// Why it cannot be used.
    pub(super) fn problem(&self) -> Option<&str> {
        self.listed.as_ref().err().map(String::as_str)
    }

    /// Why a file may not be loaded.
    pub(super) fn refusal(&self, name: &str, build: BuildId) -> Option<String> {
        let list = self.path.display();
        let listed = match &self.listed {
            Ok(listed) => listed,
            Err(problem) => return Some(format!("is not loaded, because the allow-list {list} {problem}")),
        };
        let of_name = listed.get(name);
        if of_name.is_some_and(|builds| builds.contains(&build)) {
            return None;
        }
        let found = match (of_name, listed.iter().find(|(_, builds)| builds.contains(&build))) {
            (Some(_), _) => format!("is another build than the allow-list {list} has under its name"),
            (None, Some((other, _))) => format!("is listed in the allow-list {list} as {other}, not under its name"),
            (None, None) => format!("is not in the allow-list {list}"),
        };
        Some(format!("{found}: if it may be loaded, add the line \"{}  {name}\"", build.hex()))
    }

    fn read(&mut self) -> Result<Arc<Listed>, String> {
        let real = self.path.canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "does not exist: write it, or name another file".to_owned(),
            _ => format!("cannot be read: {error}"),
        })?;
        let (text, metadata) = read_small(&real, LARGEST).map_err(|error| format!("cannot be read: {error}"))?;
        self.warning = unsafe_file_at(&real, &metadata).or_else(|| real.parent().and_then(unsafe_folder));
        match &self.warning {
            Some(reason) if self.strict => Err(format!("is not safe: {reason}")),
            _ => parse(&text).map(Arc::new),
        }
    }
}

/// Reads a file that has to be text, and not long. What is no file is an error rather than waited for.
pub(super) fn read_small(path: &Path, largest: u64) -> io::Result<(String, Metadata)> {
    let file = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    file.take(largest + 1).read_to_string(&mut text)?;
    if text.len() as u64 > largest {
        return Err(io::Error::other(format!("it has more than {largest} bytes")));
    }
    Ok((text, metadata))
}

/// A name may come several times, so that an old and a new build may both be loaded.
pub(super) fn parse(text: &str) -> Result<Listed, String> {
    let mut listed = Listed::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (build, name) = parse_line(line).ok_or_else(|| {
            format!(
                "is damaged in line {}: each line has a SHA-256 in hex, two spaces and a file's name, as sha256sum writes it",
                number + 1
            )
        })?;
        listed.entry(name.to_owned()).or_default().push(build);
    }
    Ok(listed)
}

/// A star in place of the second space means that the file was read as it is, which they all are.
fn parse_line(line: &str) -> Option<(BuildId, &str)> {
    let (hash, rest) = line.split_at_checked(64)?;
    let name = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *"))?;
    let name = name.strip_prefix("./").unwrap_or(name);
    if name.is_empty() || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut build = [0; 32];
    for (byte, digits) in build.iter_mut().zip(hash.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some((BuildId(build), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_sha256sum_writes_them() {
        let (one, two) = ("ab".repeat(32), "00".repeat(32));
        let text = format!("# what may be loaded\n\n{one}  a.so\n{two} *./mail/b.so\n{two}  a.so\n");
        let listed = parse(&text).unwrap();
        assert_eq!(listed["a.so"], [BuildId([0xab; 32]), BuildId([0; 32])]);
        assert_eq!(listed["mail/b.so"], [BuildId([0; 32])]);
    }

    #[test]
    fn a_line_that_is_none_is_named_by_its_number() {
        let hash = "ab".repeat(32);
        for line in ["x", &format!("{hash} a.so"), &format!("{hash}  "), &format!("g{}  a.so", &hash[1..]), "äöü"] {
            let error = parse(&format!("{hash}  fine.so\n{line}\n")).unwrap_err();
            assert!(error.contains("line 2"), "{error}");
        }
    }
}
