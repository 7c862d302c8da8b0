//! Why there is no embedded Postgres.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::programs;

/// Why there is no embedded Postgres.
#[derive(Debug, Error)]
pub enum EmbeddedPostgresError {
    #[error(
        "no Postgres server programs (initdb and postgres, version {oldest} or newer) were found on PATH, by pg_config or in \
         the usual places. Install them (Debian, Ubuntu: apt-get install postgresql; Fedora: dnf install postgresql-server; \
         Homebrew: brew install postgresql), or name a database with --connection or DATABASE_URL",
        oldest = programs::OLDEST
    )]
    NoPrograms,
    #[error(
        "the data in {} were made by Postgres {made}, and this machine has {}: install Postgres {made}, or move that folder \
         away to start with an empty database",
        .data.display(), .installed.join(", ")
    )]
    OtherVersion { data: PathBuf, made: u32, installed: Vec<String> },
    #[error(
        "Postgres does not run as root, and this machine has neither a user postgres nor nobody to run it as: \
         run this as an ordinary user, or name a database with --connection or DATABASE_URL"
    )]
    NoAccount,
    #[error("could not {what} {}: {error}", .path.display())]
    Files { what: &'static str, path: PathBuf, error: io::Error },
    #[error("could not make a database cluster in {}: {output}", .data.display())]
    Init { data: PathBuf, output: String },
    #[error("the embedded Postgres did not start: {tail} (all of its log: {})", .log.display())]
    Start { log: PathBuf, tail: String },
    #[error("process {pid} runs a server on {} that was not started by taskbay: stop it first", .data.display())]
    Foreign { pid: u32, data: PathBuf },
    #[error("the embedded Postgres does not answer: {0}")]
    NoAnswer(String),
}

/// Names what failed with which file.
pub(super) fn files(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EmbeddedPostgresError {
    let path = path.to_owned();
    move |error| EmbeddedPostgresError::Files { what, path, error }
}
