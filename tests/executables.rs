//! Executable files as tasks: what they are given, what their end means, and that nothing they do harms anybody else.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::harness::{
    plugins::{install, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay, of_job},
    wait::until,
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
        until(format_args!("a line in {name}"), async || match fs::read_to_string(self.note(name)) {
            Ok(text) if text.ends_with('\n') => Ok(text.trim_end().to_owned()),
            other => Err(other.unwrap_or_default()),
        })
        .await
    }

    async fn noted_id(&self, name: &str) -> u32 {
        self.noted(name).await.parse().expect("a process's id")
    }
}

fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(false)
}
