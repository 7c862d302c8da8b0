//! Strict reading of TOML tables: a key that no caller reads is an error.

use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{Origin, value::describe};

/// An unusable settings file, with the place of the error and a correction.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}, line {line}: {message}", .file.display())]
pub struct WrongSetting {
    file: PathBuf,
    line: usize,
    message: String,
}

impl WrongSetting {
    /// A value that contradicts another one.
    pub(super) fn between(place: &Origin, message: String) -> Self {
        match place {
            Origin::File { path, line } => Self { file: path.clone(), line: *line, message },
            _ => Self { file: PathBuf::new(), line: 0, message },
        }
    }
}

/// The file with the tables.
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

/// A table whose keys are read one by one.
#[derive(Debug)]
pub(super) struct Section<'a> {
    source: Source<'a>,
    /// The name in brackets; empty for the file itself.
    name: String,
    line: usize,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(source: Source<'a>, name: String, table: &'a DeTable<'a>) -> Self {
        Self { source, name, line: 1, table, known: Vec::new() }
    }

    /// The name in brackets.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The position of the table's beginning.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The value of a key, and its line. `parse` receives the value if it is present, and returns the reason if it is wrong.
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

    /// Fails if there is a key that was not read.
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

/// The candidate nearest to a mistyped word.
pub fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let word = word.to_lowercase().replace('-', "_");
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.replace('-', "_")), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
