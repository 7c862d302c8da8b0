//! JSON documents of any length: each job is written as soon as it is read, on a line of its own.

use std::io::{self, BufWriter, Stdout, Write as _};

use serde::Serialize;

use super::super::{CliError, output::json_stream};
use crate::escape;

/// A document on standard output that is being written. After an error it stays incomplete, which is no JSON.
#[derive(Debug)]
pub(super) struct JsonOutput {
    out: BufWriter<Stdout>,
    /// The list that is being written has no element yet.
    is_empty: bool,
    reader_is_gone: bool,
}

impl JsonOutput {
    /// Begins a document with this text, up to the bracket that opens the first list.
    pub(super) fn begin(text: &str) -> Result<Self, CliError> {
        let mut output = Self { out: json_stream(), is_empty: true, reader_is_gone: false };
        output.write(text)?;
        Ok(output)
    }

    /// Adds an element to the list.
    pub(super) fn element(&mut self, element: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(element).map_err(|error| CliError::system("write JSON")(error.into()))?;
        self.write(if self.is_empty { "\n  " } else { ",\n  " })?;
        self.is_empty = false;
        self.write(&escape::json(&text))
    }

    /// Ends the list, and goes on with this text, which begins with the closing bracket.
    pub(super) fn end_list(&mut self, text: &str) -> Result<(), CliError> {
        if !self.is_empty {
            self.write("\n")?;
        }
        self.is_empty = true;
        self.write(text)
    }

    /// Hands over what has not been written yet.
    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        let flushed = self.out.flush();
        self.hear(flushed)
    }

    /// Nobody reads what comes next.
    pub(super) fn reader_is_gone(&self) -> bool {
        self.reader_is_gone
    }

    fn write(&mut self, text: &str) -> Result<(), CliError> {
        if self.reader_is_gone {
            return Ok(());
        }
        let written = self.out.write_all(text.as_bytes());
        self.hear(written)
    }

    fn hear(&mut self, written: io::Result<()>) -> Result<(), CliError> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.reader_is_gone = true,
            written => written.map_err(CliError::system("write to standard output"))?,
        }
        Ok(())
    }
}
