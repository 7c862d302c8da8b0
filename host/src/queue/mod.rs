//! What is asked of Postgres: one statement per file, named as graphile-worker names them, with the row types beside them.
//!
//! Nothing here knows that plugins exist.

mod certificates;
mod connect;
mod connection;
mod encoding;
mod error;
mod passfile;
mod retry;
mod servers;
mod tls;

mod job;
mod job_rules;
mod new_job;
mod parts;
mod request_order;
mod stored_job;
mod text;

mod add_batch;
mod add_job;
mod add_jobs;
mod adding;
mod administer_jobs;
mod claim;
mod claimed;
mod cleanup;
mod complete_jobs;
mod count_jobs;
mod cron;
mod express;
mod fail_jobs;
mod force_unlock;
mod get_jobs;
mod get_jobs_apart;
mod health;
mod known_crontabs;
mod limits;
mod list_jobs;
mod listen;
mod liveness;
mod lock_age;
mod lock_holders;
mod refused_jobs;
mod release_around;
mod return_jobs;
mod row_security;
mod settle_apart;
mod task_ids;

pub use adding::{AddedJob, add_job, add_jobs, add_jobs_unread};
pub use administer_jobs::{Reschedule, UnlockedWorker};
pub use claimed::ClaimedJob;
pub use cleanup::{CleanedUp, CleanupTask};
pub use connect::TargetSession;
pub use connection::{Database, DatabaseSettings, Session};
pub use count_jobs::{JobCount, JobCounts};
pub use cron::CronJob;
pub use error::QueueError;
pub use express::{LockedAgain, Settlement};
pub use fail_jobs::{FailedJob, LONGEST_MESSAGE, StoredFailure};
pub(crate) use get_jobs::CameBack;
pub use get_jobs::Conditions;
pub use get_jobs_apart::CarefulClaim;
pub use job::Job;
pub use known_crontabs::KnownCrontab;
pub use list_jobs::{FoundJob, JobFilter, JobOrder, JobStream};
pub use listen::{Notification, listen};
pub use liveness::{LifeSign, Living, Released, SHOWS_LIFE, Unseen};
pub use lock_age::{LOCK_LIMIT, Unlocked};
pub use lock_holders::{LockHolder, LockHolders};
pub use new_job::{JobKeyMode, NewJob};
pub use row_security::{RowAccess, RowSecurityError};
pub use settle_apart::SettledApart;
pub use stored_job::{JobState, StoredJob};
pub use task_ids::TaskIds;
pub use tls::{RootCertificates, TlsError, TlsMode, TlsSettings, TlsVersions};

pub(crate) use add_batch::Batch;
pub(crate) use connection::quote_identifier;
pub(crate) use encoding::beyond_encoding;
pub(crate) use error::reason_of;
pub(crate) use parts::Parts;
