//! A file in which each run of the `echo` task leaves a line: what ran, how often, and on which build.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use tempfile::TempDir;

use super::wait::until;

/// What the lines have for the time.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000
}

/// The file, in a folder of its own.
pub struct Ledger {
    _folder: TempDir,
    file: PathBuf,
}

/// One run of `echo`.
#[derive(Debug, Deserialize)]
pub struct Entry {
    /// `began` or `ended`.
    pub event: String,
    pub job: i64,
    pub attempt: i16,
    /// The build's label, or the release of the npm package.
    pub label: String,
    /// The process that ran it.
    pub pid: u32,
    pub queue: Option<String>,
    /// When the line was written, in microseconds, by the clock that nobody sets and that all processes have in common.
    #[serde(default)]
    pub now_us: u64,
    /// The payload, byte for byte.
    pub payload: String,
}

impl Entry {
    /// The payload's number.
    #[track_caller]
    pub fn n(&self) -> i64 {
        let payload: serde_json::Value = serde_json::from_str(&self.payload).expect("the payload is JSON");
        payload["n"].as_i64().expect("the payload has a number")
    }
}

impl Ledger {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the ledger");
        let file = folder.path().join("ledger");
        Self { _folder: folder, file }
    }

    pub fn path(&self) -> &Path {
        &self.file
    }

    /// A file that is not there yet: a job with it as its `until` runs until the test writes it.
    pub fn gate(&self) -> PathBuf {
        self.file.with_file_name("gate")
    }

    /// All runs so far.
    pub fn entries(&self) -> Vec<Entry> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        // A line that is being written at this moment is not there yet.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// How often each job was run to its end.
    pub fn runs(&self) -> HashMap<i64, usize> {
        let mut runs = HashMap::new();
        for entry in self.entries().iter().filter(|entry| entry.event == "ended") {
            *runs.entry(entry.job).or_default() += 1;
        }
        runs
    }

    /// Waits until there are so many runs.
    pub async fn wait_for(&self, runs: usize) -> Vec<Entry> {
        until(format_args!("{runs} runs"), async || {
            let entries = self.entries();
            if entries.len() >= runs { Ok(entries) } else { Err(entries.len()) }
        })
        .await
    }
}
