//! A file with one booking a line, and what it adds up to.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};
use taskbay_plugin::{prelude::*, serde_json};

/// One booking. The job's id makes sure that a job which runs twice books once.
#[derive(Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) job: i64,
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) cents: u32,
}

/// The file is what counts. While a new build of the plugin starts, the old one still books, so what this one remembers is
/// brought up to date before each use.
pub(crate) struct Book {
    file: File,
    read_up_to: u64,
    balances: HashMap<String, i64>,
    booked: HashSet<i64>,
}

impl Book {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        let mut book = Self { file, read_up_to: 0, balances: HashMap::new(), booked: HashSet::new() };
        book.read_news()?;
        Ok(book)
    }

    /// Books an entry, unless its job has booked before.
    pub(crate) fn add(&mut self, entry: &Entry) -> Result<(), TaskError> {
        let lock = Locked::new(&self.file).or_fail("cannot lock the ledger")?;
        self.read_news().or_fail("cannot read the ledger")?;
        if self.booked.contains(&entry.job) {
            return Ok(());
        }
        if let Some(from) = &entry.from {
            let balance = self.balance(from);
            if balance < i64::from(entry.cents) {
                bail!("`{from}` has {balance} cents, which is less than {}", entry.cents);
            }
        }
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).or_fail("cannot write the ledger")?;
        drop(lock);
        self.read_news().or_fail("cannot read the ledger")
    }

    pub(crate) fn balance(&self, account: &str) -> i64 {
        self.balances.get(account).copied().unwrap_or_default()
    }

    /// Takes in what others have booked.
    pub(crate) fn read_news(&mut self) -> io::Result<()> {
        let mut reader = BufReader::new(&self.file);
        reader.seek(SeekFrom::Start(self.read_up_to))?;
        let mut line = String::new();
        // A line without its end is still being written.
        while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
            let entry: Entry = serde_json::from_str(&line)?;
            self.read_up_to += line.len() as u64;
            line.clear();
            if self.booked.insert(entry.job) {
                let cents = i64::from(entry.cents);
                *self.balances.entry(entry.to).or_default() += cents;
                if let Some(from) = entry.from {
                    *self.balances.entry(from).or_default() -= cents;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// Keeps other processes and other builds from booking at the same time.
struct Locked(File);

impl Locked {
    fn new(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(Self(file))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // The lock belongs to the open file, which outlives this handle of it.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}
