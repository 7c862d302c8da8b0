//! What is asked of Postgres: one statement per file, named as graphile-worker names them, with the row types beside them.
//!
//! Nothing here knows that plugins exist.

mod certificates;
mod connect;
mod connection;
mod error;
mod passfile;
mod retry;
mod tls;

mod job;
mod new_job;

mod add_jobs;
mod complete_jobs;
mod fail_jobs;
mod force_unlock;
mod get_jobs;
mod listen;
mod return_jobs;
mod task_ids;

pub use complete_jobs::CompletedJob;
pub use connect::TargetSession;
pub use connection::{Database, DatabaseSettings, Session};
pub use error::QueueError;
pub use fail_jobs::{FailedJob, LONGEST_MESSAGE, StoredFailure};
pub use job::Job;
pub use listen::{Notification, listen};
pub use new_job::{JobKeyMode, NewJob};
pub use return_jobs::ReturnedJob;
pub use tls::{RootCertificates, TlsError, TlsMode, TlsSettings, TlsVersions};

pub(crate) use connection::quote_identifier;
