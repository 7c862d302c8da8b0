//! Passwords from a file such as `~/.pgpass`, found by libpq's rules: one line per server, the first that fits counts.
//!
//! The file is read for each connection, so that a password which is changed while the host runs is used.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// What a file has for a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Password(String),
    /// No file, or no line that fits.
    Nothing,
    /// There is a file that may not or cannot be used, and why.
    Unusable(String),
}

/// Looks the password up. `host` is the name or address as it was asked for, or the socket's folder.
pub(super) fn find(file: &Path, host: &str, port: u16, database: &str, user: &str) -> Found {
    let unusable = |reason: String| Found::Unusable(format!("the password file {} {reason}", file.display()));
    let metadata = match fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Found::Nothing;
        }
        Err(error) => return unusable(format!("cannot be read: {error}")),
    };
    if !metadata.is_file() {
        return unusable("was not used: it is no plain file".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return unusable("was not used: others may read it; take that from them with chmod 600".to_owned());
    }
    match fs::read(file) {
        Ok(content) => {
            let content = String::from_utf8_lossy(&content);
            let wanted = [host, &port.to_string(), database, user];
            content.lines().find_map(|line| password_for(line, &wanted)).map_or(Found::Nothing, Found::Password)
        }
        Err(error) => unusable(format!("cannot be read: {error}")),
    }
}

/// The password of a line `host:port:database:user:password` whose first four fields fit.
fn password_for(line: &str, wanted: &[&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = split(line);
    for wanted in wanted {
        let (field, is_star) = fields.next()?;
        if !is_star && field != *wanted {
            return None;
        }
    }
    // An empty password is as good as none.
    fields.next().map(|(password, _)| password).filter(|password| !password.is_empty())
}

/// The fields of a line, each with whether it is a bare star. A backslash takes the meaning from a colon or backslash
/// behind it.
fn split(line: &str) -> impl Iterator<Item = (String, bool)> + '_ {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let mut field = String::new();
        let mut characters = text.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                ':' => {
                    rest = Some(&text[at + 1..]);
                    break;
                }
                '\\' => field.extend(characters.next().map(|(_, escaped)| escaped)),
                other => field.push(other),
            }
        }
        let is_star = text == "*" || text.starts_with("*:");
        Some((field, is_star))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_counts() {
        let wanted = ["db", "5432", "jobs", "me"];
        assert_eq!(password_for("db:5432:jobs:me:secret", &wanted).as_deref(), Some("secret"));
        assert_eq!(password_for("*:*:*:*:a:b", &wanted).as_deref(), Some("a"));
        assert_eq!(password_for(r"*:*:*:*:a\:b\\c", &wanted).as_deref(), Some(r"a:b\c"));
        for line in
            ["db:5433:jobs:me:x", "#*:*:*:*:x", "db:5432:jobs", "db:5432:jobs:me", "db:5432:jobs:me:", r"\*:*:*:*:x"]
        {
            assert_eq!(password_for(line, &wanted), None, "{line}");
        }
        assert_eq!(password_for(r"a\:b:1:x:y:z", &["a:b", "1", "x", "y"]).as_deref(), Some("z"));
    }
}
