//! Why a host did not start or did not end as it was told to.

use std::path::PathBuf;

use thiserror::Error;

use crate::{
    cron::CronError,
    migrate::MigrateError,
    parts::PartFailure,
    queue::QueueError,
    tasks::{FolderError, Rejection},
};

/// Why the host did not start, or why it ended although nobody told it to.
#[derive(Debug, Error)]
pub enum HostError {
    #[error(transparent)]
    Database(#[from] QueueError),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Cron(#[from] CronError),
    #[error("not starting, because of the tasks folder: {}; to start without, use --watch",
        .0.iter().map(|one| format!("{}: {}", one.file, one.reason)).collect::<Vec<_>>().join("; "))]
    BrokenFiles(Vec<Rejection>),
    /// In [`Mode::Once`](super::Mode::Once); the others have done what there was to do.
    #[error("{} did not start, see above, so {} jobs were not run", .0.join(", "),
        if .0.len() == 1 { "its" } else { "their" })]
    NotStarted(Vec<String>),
    /// The tasks that are compiled into this program.
    #[error("not starting: the list of tasks {0}")]
    Tasks(String),
    #[error("there is nothing to do: the tasks folder {} has no task; put a compiled plugin there, or name another folder", .0.display())]
    NoTasks(PathBuf),
    /// A bug of this program, and no reason not to start it again.
    #[error("the host stopped because of an internal error: {0}. Please report this; it can be started again")]
    Part(PartFailure),
}
