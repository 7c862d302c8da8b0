//! Parsing of connection strings: the form with keywords, and the common parts of both forms.
//!
//! No message repeats a part of the text: after a wrong character, any part may belong to a password.

use std::{collections::BTreeMap, fmt, str::FromStr};

use thiserror::Error;

use super::{parameters, url};

/// The reason why a text is not a connection string. Never contains a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ConnectionStringError(pub(super) String);

/// The parameters of a connection string, in either of its forms: `postgres://user@host/database?sslmode=require` or
/// `host=… dbname=…`. Only known parameters, with their values as written.
///
/// ```
/// use taskbay::config::ConnectionString;
///
/// let string: ConnectionString = "postgres://me@db.example:5433/jobs".parse()?;
/// assert_eq!(string.get("port"), Some("5433"));
/// assert_eq!(string.to_keywords(), "dbname='jobs' host='db.example' port='5433' user='me'");
/// # Ok::<(), taskbay::config::ConnectionStringError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ConnectionString {
    values: BTreeMap<&'static str, String>,
}

impl ConnectionString {
    /// The value of a parameter. An empty value requests the default, regardless of the environment.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The form with keywords, which parses to the same parameters. It contains the password.
    pub fn to_keywords(&self) -> String {
        let quote = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
        let pairs: Vec<String> = self.values.iter().map(|(name, value)| format!("{name}='{}'", quote(value))).collect();
        pairs.join(" ")
    }

    pub(super) fn values(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// A later value replaces an earlier one. `place` counts from one.
    pub(super) fn set(&mut self, place: usize, name: &str, value: String) -> Result<(), ConnectionStringError> {
        let parameter = parameters::find(name).ok_or_else(|| unknown(place, name))?;
        self.values.insert(parameter.name, value);
        Ok(())
    }
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, ConnectionStringError> {
        if text.contains('\0') {
            return Err(wrong("it contains a NUL"));
        }
        match url::SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)) {
            Some(rest) => url::read(rest),
            None => read(text),
        }
    }
}

/// Without the values of secrets, and of other parameters that may contain parts of them by mistake.
impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

pub(super) fn wrong(reason: impl Into<String>) -> ConnectionStringError {
    ConnectionStringError(reason.into())
}

/// The unknown name may be the end of a password with a space in it, so the message has only the nearest known name.
fn unknown(place: usize, name: &str) -> ConnectionStringError {
    let meant = parameters::nearest(name).map(|known| format!(" (did you mean {known}?)")).unwrap_or_default();
    wrong(format!("its parameter number {place} is unknown{meant}"))
}

/// Any number of `name = value`, with spaces between them and around the signs. A value with spaces is quoted; a backslash
/// escapes a following quote or backslash.
fn read(text: &str) -> Result<ConnectionString, ConnectionStringError> {
    let mut read = ConnectionString::default();
    let mut rest = text.trim_start_matches(is_blank);
    if rest.is_empty() {
        return Err(wrong("it is empty"));
    }
    for place in 1.. {
        let Some((name, behind)) = rest.split_once('=') else {
            return Err(wrong(if place == 1 {
                "it is neither a URL that begins with postgres:// nor a list such as host=… dbname=…".to_owned()
            } else {
                format!("there is no = behind the name of its parameter number {place}")
            }));
        };
        let name = name.trim_end_matches(is_blank);
        if name.contains(is_blank) {
            return Err(wrong(format!("there is no = behind the name of its parameter number {place}")));
        }
        let (value, behind) = read_value(behind.trim_start_matches(is_blank))
            .ok_or_else(|| wrong(format!("the quotes around the value of its parameter number {place} do not end")))?;
        read.set(place, name, value)?;
        rest = behind.trim_start_matches(is_blank);
        if rest.is_empty() {
            break;
        }
    }
    Ok(read)
}

/// A value and the rest of the text; `None` if its quotes are not closed.
fn read_value(text: &str) -> Option<(String, &str)> {
    let (quoted, text) = text.strip_prefix('\'').map_or((false, text), |inner| (true, inner));
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, escaped)) => value.push(escaped),
                None if quoted => return None,
                None => {}
            },
            '\'' if quoted => return Some((value, &text[at + 1..])),
            blank if !quoted && is_blank(blank) => return Some((value, &text[at..])),
            other => value.push(other),
        }
    }
    (!quoted).then_some((value, ""))
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}
