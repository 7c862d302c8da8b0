//! A table of a TOML file, read strictly: every key is asked for, and what nobody asked for is an error.

use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::Origin;

/// A settings file that cannot be used: which, where in it, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}, line {line}: {message}", .file.display())]
pub struct WrongSetting {
    file: PathBuf,
    line: usize,
    message: String,
}

impl WrongSetting {
    /// A value that does not go with another one.
    pub(super) fn between(place: &Origin, message: String) -> Self {
        match place {
            Origin::File { path, line } => Self { file: path.clone(), line: *line, message },
            _ => Self { file: PathBuf::new(), line: 0, message },
        }
    }
}

/// The file that the tables are in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn wrong(&self, at: usize, message: impl Into<String>) -> WrongSetting {
        WrongSetting { file: self.path.to_owned(), line: self.line(at), message: message.into() }
    }

    fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// A table of which keys are read one by one.
#[derive(Debug)]
pub(super) struct Section<'a> {
    source: Source<'a>,
    /// As it stands between brackets; empty for the file itself.
    name: String,
    line: usize,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(source: Source<'a>, name: String, table: &'a DeTable<'a>) -> Self {
        Self { source, name, line: 1, table, known: Vec::new() }
    }

    /// As it stands between brackets.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where it begins.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The value of a key, and the line that it is in. `parse` gets it if it is there, and says what is wrong with it.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'a>) -> Result<T, String>,
    ) -> Result<Option<(T, usize)>, WrongSetting> {
        self.known.push(key);
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let line = self.source.line(value.span().start);
        parse(value.get_ref())
            .map(|value| Some((value, line)))
            .map_err(|reason| self.source.wrong(value.span().start, format!("{}: {reason}", self.path_of(key))))
    }

    /// The table under a key.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Option<Section<'a>>, WrongSetting> {
        self.known.push(key);
        self.table.get_key_value(key).map(|(key, value)| self.subsection(key, value)).transpose()
    }

    /// All tables in this one, whatever their keys.
    pub(super) fn sections(&self) -> Result<Vec<(String, Section<'a>)>, WrongSetting> {
        self.table.iter().map(|(key, value)| Ok((key.get_ref().to_string(), self.subsection(key, value)?))).collect()
    }

    /// Fails if there is a key that was not asked for.
    pub(super) fn finish(self) -> Result<(), WrongSetting> {
        let Some((key, _)) = self.table.iter().find(|(key, _)| !self.known.contains(&key.get_ref().as_ref())) else {
            return Ok(());
        };
        let place = if self.name.is_empty() { String::new() } else { format!(" in [{}]", self.name) };
        let what = if self.name.is_empty() { "section" } else { "key" };
        let hint = match nearest(key.get_ref(), &self.known) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the {what}s there are: {}", self.known.join(", ")),
        };
        Err(self.source.wrong(key.span().start, format!("unknown {what} {:?}{place}; {hint}", key.get_ref())))
    }

    fn subsection(
        &self,
        key: &Spanned<DeString<'a>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Result<Section<'a>, WrongSetting> {
        let name = self.path_of(key.get_ref());
        let line = self.source.line(key.span().start);
        match value.get_ref() {
            DeValue::Table(table) => Ok(Section { line, ..Section::new(self.source, name, table) }),
            other => Err(self.source.wrong(
                value.span().start,
                format!("{name} must be a section, written [{name}], not {}", describe(other)),
            )),
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// A value's type, for a message about it, with the value where that helps.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(time) => format!("the time {time}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

/// The candidate that a mistyped word was probably meant to be.
pub fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let word = word.to_lowercase().replace('-', "_");
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.replace('-', "_")), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
