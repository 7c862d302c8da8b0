//! Brings a database to a later revision, in one transaction: it has the old revision or the new one, never one between.
//!
//! Therefore, not each of the twenty revisions has SQL: other programs only ever find a database at a revision from which
//! they can continue.

use tokio_postgres::{Transaction, error::SqlState};

use super::{
    error::MigrateError,
    look::Found,
    revisions::{NEWEST, OLDEST, all_breaking, steps},
    workers,
};
use crate::queue::{Session, quote_identifier};

const TABLES: &str = include_str!("../../../migrations/tables.sql");
const SET_ASIDE: &str = include_str!("../../../migrations/set_aside.sql");
const CARRY_OVER: &str = include_str!("../../../migrations/carry_over.sql");
const RENAME: &str = include_str!("../../../migrations/rename.sql");
const SILENCE: &str = include_str!("../../../migrations/silence.sql");
const INTERFACE: &str = include_str!("../../../migrations/interface.sql");
const ADD_JOBS: &str = include_str!("../../../migrations/add_jobs.sql");

/// The reason why a transaction was rolled back.
pub(super) enum Undone {
    /// Another program is doing the same, or has done it.
    InTheWay(tokio_postgres::Error),
    Refused(MigrateError),
}

/// Brings the database from what it was found at to a later revision.
pub(super) async fn advance(session: &mut Session, found: &Found, to: i32) -> Result<(), Undone> {
    let database = session.database().clone();
    let failed = |error: tokio_postgres::Error| {
        if is_clash(&error) { Undone::InTheWay(error) } else { Undone::Refused(found.refused(to, &error)) }
    };
    // Dropped without a commit, it is rolled back.
    let transaction = session.transaction().await.map_err(failed)?;
    announce(&transaction, found, to).await.map_err(failed)?;
    for file in files(found.number(), to) {
        transaction.batch_execute(&database.render(file)).await.map_err(failed)?;
        if *file == SET_ASIDE {
            let legacy = Legacy { transaction: &transaction, found };
            legacy.check().await.map_err(failed)?.map_err(Undone::Refused)?;
        }
    }
    notify(&transaction, found.number(), to).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

/// What has to be run from a revision on. From before 18, the functions are those of revision 20 wherever the way ends: they
/// do the same as those of 18, but for the numbers that they save.
fn files(from: i32, to: i32) -> &'static [&'static str] {
    match from {
        ..=0 => &[TABLES, INTERFACE, ADD_JOBS],
        1..=10 => &[SET_ASIDE, TABLES, CARRY_OVER, INTERFACE, ADD_JOBS],
        11..=15 => &[RENAME, SILENCE, INTERFACE, ADD_JOBS],
        16..=17 => &[SILENCE, INTERFACE, ADD_JOBS],
        OLDEST.. if to == NEWEST => &[ADD_JOBS],
        OLDEST.. => &[],
    }
}

/// Inserts the rows of the revisions before anything else, because they are the lock: whoever does the same at the same
/// time, in whatever language, waits here for the end of this transaction and then learns by the unique violation that the
/// work is done. And once they are in, the database is at the revision that it was found at.
async fn announce(transaction: &Transaction<'_>, found: &Found, to: i32) -> Result<(), tokio_postgres::Error> {
    let schema = quote_identifier(&found.schema);
    // Only if it is missing, because this asks for a right that a careful administrator withholds.
    if !found.schema_exists {
        transaction.batch_execute(&format!("create schema if not exists {schema}")).await?;
    }
    if !found.has_migrations {
        let columns = "id integer constraint migrations_pkey primary key,
            ts timestamp with time zone default now() not null,
            breaking boolean default false not null";
        transaction.batch_execute(&format!("create table if not exists {schema}.migrations ({columns})")).await?;
    } else if !found.has_breaking {
        // Made by a release before 0.16, or prepared by an old manual.
        let column = "add column if not exists breaking boolean default false not null";
        transaction.batch_execute(&format!("alter table {schema}.migrations {column}")).await?;
    }
    let (numbers, breaking): (Vec<i32>, Vec<bool>) =
        steps(found.number(), to).map(|step| (step.number, step.breaking)).unzip();
    let rows = format!("insert into {schema}.migrations (id, breaking) select * from unnest($1::int4[], $2::bool[])");
    transaction.execute(&rows, &[&numbers, &breaking]).await?;
    let marks = format!("update {schema}.migrations set breaking = true where id = any ($1) and not breaking");
    transaction.execute(&marks, &[&all_breaking()]).await?;
    Ok(())
}

/// Notifies running workers of every revision, in order.
async fn notify(transaction: &Transaction<'_>, from: i32, to: i32) -> Result<(), tokio_postgres::Error> {
    for step in steps(from, to) {
        let payload = format!(r#"{{"migrationNumber":{},"breaking":{}}}"#, step.number, step.breaking);
        transaction.execute("select pg_notify('worker:migrate', $1)", &[&payload]).await?;
    }
    Ok(())
}

/// The tables of revisions 1 to 10, put aside in this transaction.
struct Legacy<'a> {
    transaction: &'a Transaction<'a>,
    found: &'a Found,
}

impl Legacy<'_> {
    /// Whether their jobs may be moved.
    async fn check(&self) -> Result<Result<(), MigrateError>, tokio_postgres::Error> {
        let (database, schema) = (self.found.database.clone(), self.found.schema.clone());
        let number = self.found.number();
        let table = format!("{}_legacy", workers::locked_table(number));
        let locks = workers::locks(self.transaction, &schema, number, &table).await?;
        if locks.jobs() > 0 {
            return Ok(Err(MigrateError::Locked { database, schema, locks }));
        }
        // Their columns are wider than those of today, and the earliest of them had no limits.
        let too_large = format!(
            "select count(*), min(id) from {}.jobs_legacy
             where priority not between -32768 and 32767
                or attempts not between -32768 and 32767
                or max_attempts not between 1 and 32767
                or length(key) > 512
                or length(task_identifier) > 128
                or length(queue_name) > 128",
            quote_identifier(&schema)
        );
        let row = self.transaction.query_one(&too_large, &[]).await?;
        Ok(match row.get::<_, Option<i64>>(1) {
            Some(first) => Err(MigrateError::TooLarge { database, schema, jobs: row.get(0), first }),
            None => Ok(()),
        })
    }
}

/// Two at once: a row, a schema or a table was there first.
fn is_clash(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::UNIQUE_VIOLATION,
            SqlState::DUPLICATE_SCHEMA,
            SqlState::DUPLICATE_TABLE,
            SqlState::DUPLICATE_OBJECT,
            SqlState::T_R_DEADLOCK_DETECTED,
        ]
        .contains(code)
    })
}
