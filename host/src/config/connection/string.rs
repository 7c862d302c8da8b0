//! The parameters of a connection string.
//!
//! No message repeats a part of the text: after a wrong character, any part may belong to a password.

use std::{collections::BTreeMap, fmt};

use thiserror::Error;

use super::parameters;

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
