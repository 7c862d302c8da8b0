//! A pipe to which jobs of the task `stamp` write their number and the time at which they began.

use std::{
    collections::HashMap,
    ffi::CString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Read as they come. Removed with this.
#[derive(Debug)]
pub struct Stamps {
    pub path: PathBuf,
    seen: Arc<Seen>,
    reading: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    times: Mutex<HashMap<i64, i64>>,
    one_more: Notify,
}

impl Stamps {
    pub fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("stamps");
        let name = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the name is a string of C that lives here.
        let made = unsafe { libc::mkfifo(name.as_ptr(), 0o600) };
        ensure!(made == 0, "make the pipe {}: {}", path.display(), std::io::Error::last_os_error());
        // For writing, too, so that it does not end between two writers.
        let pipe = pipe::OpenOptions::new().read_write(true).open_receiver(&path).context("open the pipe")?;
        let seen = Arc::new(Seen::default());
        let reading = tokio::spawn(read(pipe, Arc::clone(&seen)));
        Ok(Self { path, seen, reading })
    }

    /// When the job with this number began, as soon as it has.
    pub async fn of(&self, n: i64) -> Result<i64> {
        let found = async {
            loop {
                let one_more = self.seen.one_more.notified();
                if let Some(time) = self.seen.times.lock().unwrap_or_else(PoisonError::into_inner).get(&n) {
                    return *time;
                }
                one_more.await;
            }
        };
        timeout(DEADLINE, found).await.with_context(|| format!("job {n} did not begin within {DEADLINE:?}"))
    }
}

impl Drop for Stamps {
    fn drop(&mut self) {
        self.reading.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn read(pipe: pipe::Receiver, seen: Arc<Seen>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some((n, time)) = line.split_once(' ') else { continue };
        if let (Ok(n), Ok(time)) = (n.parse(), time.parse()) {
            // The first time counts, should one run twice.
            seen.times.lock().unwrap_or_else(PoisonError::into_inner).entry(n).or_insert(time);
            seen.one_more.notify_waiters();
        }
    }
}
