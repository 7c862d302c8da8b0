//! Why a database cannot be worked, or brought to another revision.

use thiserror::Error;

use super::{
    revisions::{NEWEST, OLDEST},
    workers::Locks,
};
use crate::queue::{QueueError, quote_identifier};

/// Why a database cannot be worked, or brought to another revision. Whenever there is one, nothing was changed.
#[derive(Debug, Error)]
pub enum MigrateError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(
        "{database} runs on PostgreSQL {version}, and this program needs PostgreSQL 12 or newer; upgrade the server"
    )]
    OldServer { database: String, version: String },
    #[error(
        "schema {schema} in {database} is at revision {number}, where revision {breaking} is marked as breaking, and this \
         program knows no further than revision {NEWEST}; use a newer version of this program"
    )]
    NewerBreaking { database: String, schema: String, number: i32, breaking: i32 },
    #[error(
        "schema {schema} in {database} is at revision {number}, and this program works from revision {OLDEST} on; it does \
         not change a database that it did not make unless it is told to: `taskbay migrate` upgrades it, and \
         `taskbay migrate --dry-run` says what that does. Workers of graphile-worker older than 0.16 cannot work on it \
         afterwards; if some of 0.16 are to share it, use `taskbay migrate --to 18`"
    )]
    TooOld { database: String, schema: String, number: i32 },
    #[error(
        "schema {schema} in {database} was made by kongtask, whose tables are not those of graphile-worker from its \
         revision 11 on; use another schema (--schema) and add the waiting jobs there again"
    )]
    Kongtask { database: String, schema: String },
    #[error(
        "schema {schema} in {database} has no table of migrations, but has {found}: it belongs to another program or was \
         damaged; use another schema (--schema)"
    )]
    Foreign { database: String, schema: String, found: String },
    #[error(
        "could not install schema {schema} in {database} as role {role}: {reason}; let a role do it that may create \
         schemas in the database (GRANT CREATE ON DATABASE), and use the same role for the worker"
    )]
    MayNotInstall { database: String, schema: String, role: String, reason: String },
    #[error(
        "could not upgrade schema {schema} in {database} as role {role}: its tables belong to role {owner}, and what an \
         upgrade makes has to belong to the same role, or that one could not work its jobs any more; connect as {owner}"
    )]
    NotOwner { database: String, schema: String, role: String, owner: String },
    #[error(
        "could not upgrade schema {schema} in {database}: {}, and revision 11 moves all jobs to other tables, which must \
         not happen to a job that runs. Nothing was changed. Stop the workers, let them finish their jobs, and try again. \
         The lock of a worker that is gone without a word counts for four hours; to end it sooner, for a worker that surely \
         runs no more: {}", .locks.sentence(), unlock(.schema, .locks))]
    Locked { database: String, schema: String, locks: Locks },
    #[error(
        "could not upgrade schema {schema} in {database}: {} of revision 11, the first of them job {first}. Nothing was \
         changed. The new tables take priorities from -32768 to 32767, 1 to 32767 attempts at most, keys of 1 to 512 \
         characters, and names of tasks and queues of up to 128; change or delete what does not fit in {}.jobs, and try again",
        plural(*.jobs, "job does not fit into the tables", "jobs do not fit into the tables"), quote_identifier(.schema)
    )]
    TooLarge { database: String, schema: String, jobs: i64, first: i64 },
    #[error(
        "could not bring schema {schema} in {database} to revision {to}: {reason}. Nothing was changed: it is at revision \
         {from} as before"
    )]
    Failed { database: String, schema: String, from: i32, to: i32, reason: String },
    #[error(
        "could not install schema {schema} in {database}: another program was in the way {rounds} times, the last time \
         so: {reason}; try again"
    )]
    InTheWay { database: String, schema: String, rounds: usize, reason: String },
}

impl MigrateError {
    /// The exit status for it: 57 tells process supervisors, as graphile-worker does, that a newer program is needed.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::NewerBreaking { .. }) { 57 } else { 1 }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Queue(error) if error.is_temporary())
    }

    /// Whether the database could not be reached.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::Queue(error) if error.is_outage())
    }
}

fn plural(count: i64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The statements that end the locks of gone workers, ready to be copied.
fn unlock(schema: &str, locks: &Locks) -> String {
    let schema = quote_identifier(schema);
    let owner = locks.owners.first().map_or("…", |(owner, _)| owner).replace('\'', "''");
    let tables: &[&str] = if locks.of_queues { &["job_queues"] } else { &["jobs", "job_queues"] };
    let statements = tables.iter().map(|table| {
        format!("update {schema}.{table} set locked_at = null, locked_by = null where locked_by = '{owner}';")
    });
    statements.collect::<Vec<_>>().join(" ")
}
