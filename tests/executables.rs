//! Executable files as tasks: what they are given, what their end means, and that nothing they do harms anybody else.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::harness::{
    plugins::{install, tasks_folder},
    postgres::TestDatabase,
    program::{DEADLINE, Running, Taskbay},
};

mod endings;
mod output;
mod protocol;
mod swap;

/// A database with the schema, a tasks folder, and another folder for what the scripts leave behind.
struct Workplace {
    database: TestDatabase,
    tasks: TempDir,
    notes: TempDir,
}

impl Workplace {
    async fn new() -> Self {
        Self {
            database: TestDatabase::installed().await,
            tasks: tasks_folder(),
            notes: tempfile::tempdir().expect("a folder for notes"),
        }
    }

    /// Puts a shell script into the tasks folder, which finds the folder for notes in `$NOTES`.
    #[track_caller]
    fn script(&self, name: &str, body: &str) {
        let path = self.tasks.path().join(name);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { panic!("{name} is no name") };
        install(folder, &name.to_string_lossy(), format!("#!/bin/sh\n{body}\n").as_bytes());
    }

    fn run(&self) -> Taskbay {
        Taskbay::run(&self.database.url(), self.tasks.path()).env("NOTES", self.notes.path())
    }

    async fn ready(&self, command: Taskbay) -> Running {
        let host = command.spawn();
        host.event("worker_ready", |_| true).await;
        host
    }

    /// Works all jobs and ends.
    async fn once(&self) -> Running {
        let mut host = self.run().arg("--once").spawn();
        assert!(host.ended().await.success());
        host
    }

    fn note(&self, name: &str) -> PathBuf {
        self.notes.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.note(name)).unwrap_or_else(|error| panic!("nothing noted in {name}: {error}"))
    }

    /// Waits for a line in a note, such as a process's id.
    async fn noted(&self, name: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match fs::read_to_string(self.note(name)) {
                Ok(text) if text.ends_with('\n') => return text.trim_end().to_owned(),
                _ => assert!(Instant::now() < deadline, "nothing is noted in {name}"),
            }
            // A file system tells nobody here.
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn noted_id(&self, name: &str) -> u32 {
        self.noted(name).await.parse().expect("a process's id")
    }
}

fn of_job(id: i64) -> impl Fn(&Value) -> bool {
    move |line| line["job"] == id
}

fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(false)
}
