//! What is asked of Postgres: one statement per file, named as graphile-worker names them, with the row types beside them.
//!
//! Nothing here knows that plugins exist.

mod connection;
mod error;

mod job;
mod new_job;
mod stored_job;

mod add_jobs;
mod administer_jobs;
mod cleanup;
mod complete_jobs;
mod fail_jobs;
mod force_unlock;
mod get_jobs;
mod list_jobs;
mod listen;
mod return_jobs;
mod task_ids;

pub use administer_jobs::{Reschedule, UnlockedWorker};
pub use cleanup::{CleanedUp, CleanupTask};
pub use complete_jobs::CompletedJob;
pub use connection::{Database, DatabaseSettings, Session};
pub use error::QueueError;
pub use fail_jobs::{FailedJob, LONGEST_MESSAGE, StoredFailure};
pub use job::Job;
pub use list_jobs::{JobCount, JobFilter, JobOrder, LockHolder};
pub use listen::{Notification, listen};
pub use new_job::{JobKeyMode, NewJob};
pub use return_jobs::ReturnedJob;
pub use stored_job::{JobState, StoredJob};

pub(crate) use connection::quote_identifier;
