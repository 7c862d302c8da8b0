//! The processes of a contender while it works: started, watched, measured, stopped.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};

/// All of them are killed, with what they started, when this is dropped.
#[derive(Debug)]
pub struct Fleet {
    name: &'static str,
    log: PathBuf,
    processes: Vec<Child>,
}

/// How long stopping may take.
const DEADLINE: Duration = Duration::from_secs(30);

impl Fleet {
    pub fn new(name: &'static str, folder: &Path) -> Self {
        Self { name, log: folder.join(format!("{name}.log")), processes: Vec::new() }
    }

    /// Starts one more. What it writes is kept for the case that it fails.
    pub fn add(&mut self, mut command: Command) -> Result<()> {
        let log = if self.processes.is_empty() {
            File::create(&self.log)
        } else {
            File::options().append(true).open(&self.log)
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.context("make a log file")?);
        self.processes.push(command.spawn().with_context(|| format!("start {}", self.name))?);
        Ok(())
    }

    /// Fails if one of them has ended.
    pub fn check(&mut self) -> Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.try_wait()? {
                bail!("{} ended by itself ({status}); the end of its log:\n{}", self.name, log_end(&self.log));
            }
        }
        Ok(())
    }

    /// Tells them to stop, and waits for their end. Returns how long that took.
    pub async fn stop(mut self) -> Result<Duration> {
        let told = Instant::now();
        for process in &self.processes {
            signal(process, libc::SIGTERM);
        }
        for process in &mut self.processes {
            match tokio::time::timeout(DEADLINE, process.wait()).await {
                Ok(ended) => ended.context("wait for a process").map(drop)?,
                Err(_) => {
                    bail!("{} did not stop within {DEADLINE:?}; the end of its log:\n{}", self.name, log_end(&self.log))
                }
            }
        }
        let took = told.elapsed();
        self.processes.clear();
        Ok(took)
    }

    /// Their memory now, in bytes: what each has for itself, and its part of what it shares.
    pub fn memory(&self) -> u64 {
        self.ids().map(memory_of_tree).sum()
    }

    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().filter_map(Child::id)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for id in self.ids() {
            // Each is a process group of its own.
            // SAFETY: sends a signal to a group that was made by `Bench::program`.
            unsafe { libc::kill(-(id as i32), libc::SIGKILL) };
        }
    }
}

fn signal(process: &Child, signal: i32) {
    if let Some(id) = process.id() {
        // SAFETY: the process has not been waited for, so the number is still its own.
        unsafe { libc::kill(id as i32, signal) };
    }
}

/// Of a process and all that it has started, in bytes. Zero of those that are gone.
pub fn memory_of_tree(id: u32) -> u64 {
    let own = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let children: u64 = threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|ids| ids.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>())
        .map(memory_of_tree)
        .sum();
    own.unwrap_or(0) * 1024 + children
}

fn log_end(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
