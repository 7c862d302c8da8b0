//! Installs the schema in a fresh database, and refuses those that cannot be worked.
//!
//! A database that is found at a revision that can be worked is left exactly as it is: workers of other programs may live
//! on it that do not survive the next revision.

use std::time::{Duration, Instant};

use thiserror::Error;
use tokio_postgres::{error::SqlState, types::Type};

use crate::queue::{Database, QueueError, Session, quote_identifier};

/// What a fresh database gets.
const INSTALL: &str = include_str!("../../migrations/install.sql");

/// The revision that a fresh database gets, and the newest that is known here.
pub const NEWEST: i32 = 20;

/// The oldest revision whose tables are those of the newest.
pub const OLDEST: i32 = 18;

const OLDEST_SERVER: i32 = 120_000;

/// How long an old revision has to stand still before it is taken for an old database, not for one that another program
/// is installing at this moment.
const STANDSTILL: Duration = Duration::from_secs(1);

/// How often an installation is begun that another one is in the way of.
const ROUNDS: usize = 20;

/// The revision of a database that can be worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    pub number: i32,
    /// The newest revision that programs have to know to work here.
    pub newest_breaking: i32,
    /// It was installed just now, by us.
    pub installed: bool,
}

impl Revision {
    /// What to tell people of it, if anything.
    pub fn warning(&self) -> Option<String> {
        (self.number > NEWEST).then(|| {
            format!(
                "the database is at revision {}, newer than {NEWEST}, the newest that this program knows; \
                 nothing in it is marked as breaking, so work goes on, but a newer version of this program is due",
                self.number
            )
        })
    }
}

/// Why a database cannot be worked.
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
        "schema {schema} in {database} is at revision {number}, and this program works from revision {OLDEST} on; \
         let graphile-worker 0.16 or newer upgrade it, or use another schema (--schema)"
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
        "role {role} does not own the tables of schema {schema} in {database}, whose row-level security hides all jobs \
         from it; connect as the role that installed the schema"
    )]
    RowsHidden { database: String, schema: String, role: String },
    #[error(
        "could not install schema {schema} in {database}: another program was in the way {ROUNDS} times, the last time \
         so: {reason}; try again"
    )]
    InTheWay { database: String, schema: String, reason: String },
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
}

/// Makes sure that the database can be worked: installs the schema where there is none, and refuses what this program does
/// not know. Any number of programs may do it at once.
pub async fn prepare(database: &Database) -> Result<Revision, MigrateError> {
    let mut session = database.session().await?;
    let mut clashes = 0;
    let mut standstill = Standstill { number: 0, since: Instant::now() };
    loop {
        let found = look(&session).await?;
        match found.revision {
            None => match install(&mut session, &found).await {
                Ok(()) => return Ok(Revision { number: NEWEST, newest_breaking: 19, installed: true }),
                Err(error) if is_clash(&error) => {
                    clashes += 1;
                    if clashes == ROUNDS {
                        return Err(found.in_the_way(&error));
                    }
                    // The other one's transaction is over, or about to be.
                    tokio::time::sleep(Duration::from_millis(20 + u64::from(rand::random::<u8>()))).await;
                }
                Err(error) => return Err(found.install_error(&error)),
            },
            Some((number, _)) if number < OLDEST => {
                if !standstill.goes_on(number)
                    && !is_being_migrated(&session).await?
                    // The other one's transaction may have ended between the two looks.
                    && look(&session).await?.revision == found.revision
                {
                    return Err(found.too_old(number));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Some((number, newest_breaking)) => {
                found.check(number, newest_breaking)?;
                return Ok(Revision { number, newest_breaking, installed: false });
            }
        }
    }
}

/// The revision as it is, also one that cannot be worked; `None` where the schema is not installed.
pub async fn current(database: &Database) -> Result<Option<Revision>, MigrateError> {
    let session = database.session().await?;
    let found = look(&session).await?;
    Ok(found.revision.map(|(number, newest_breaking)| Revision { number, newest_breaking, installed: false }))
}

/// Whether an old revision moves.
struct Standstill {
    number: i32,
    since: Instant,
}

impl Standstill {
    fn goes_on(&mut self, number: i32) -> bool {
        if self.number != number {
            *self = Self { number, since: Instant::now() };
        }
        self.since.elapsed() < STANDSTILL
    }
}

/// What there is before anything is done.
struct Found {
    database: String,
    schema: String,
    role: String,
    schema_exists: bool,
    has_migrations: bool,
    has_breaking: bool,
    has_task_identifiers: bool,
    rows_hidden: bool,
    /// The newest revision and the newest breaking one; `None` before the first.
    revision: Option<(i32, i32)>,
}

/// $1 the schema. The catalog is readable for everybody and takes no lock.
const LOOK: &str = "
with relation as (
  select class.oid, class.relname
  from pg_catalog.pg_class as class
  join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
  where namespace.nspname = $1
)
select
  current_setting('server_version_num')::int4,
  current_setting('server_version'),
  current_user::text,
  exists (select from pg_catalog.pg_namespace where nspname = $1),
  exists (select from relation where relname = 'migrations'),
  exists (
    select from relation join pg_catalog.pg_attribute as attribute on attribute.attrelid = relation.oid
    where relname = 'migrations' and attname = 'breaking' and not attisdropped
  ),
  exists (
    select from relation join pg_catalog.pg_attribute as attribute on attribute.attrelid = relation.oid
    where relname = 'jobs' and attname = 'task_identifier' and not attisdropped
  ),
  (
    select string_agg(relname, ', ' order by relname) from relation
    where relname in (
      '_private_jobs', '_private_job_queues', '_private_tasks', '_private_known_crontabs', 'jobs', 'job_queues', 'tasks',
      'known_crontabs', 'job_spec'
    )
  ),
  coalesce((select pg_catalog.row_security_active(oid) from relation where relname = '_private_jobs'), false)";

async fn look(session: &Session) -> Result<Found, MigrateError> {
    const WHAT: &str = "look at the schema";
    let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
    let database = session.database().name().to_owned();
    let schema = session.database().schema().to_owned();
    let row = session.client().query_typed_one(LOOK, &[(&schema, Type::TEXT)]).await.map_err(read)?;
    if row.get::<_, i32>(0) < OLDEST_SERVER {
        return Err(MigrateError::OldServer { database, version: row.get(1) });
    }
    let mut found = Found {
        database,
        schema,
        role: row.get(2),
        schema_exists: row.get(3),
        has_migrations: row.get(4),
        has_breaking: row.get(5),
        has_task_identifiers: row.get(6),
        rows_hidden: row.get(8),
        revision: None,
    };
    if !found.has_migrations {
        return match row.get::<_, Option<String>>(7) {
            Some(others) => {
                Err(MigrateError::Foreign { database: found.database, schema: found.schema, found: others })
            }
            None => Ok(found),
        };
    }
    let breaking = if found.has_breaking { "max(id) filter (where breaking)" } else { "null::int4" };
    let migrations = format!("{}.migrations", quote_identifier(&found.schema));
    let row = session
        .client()
        .query_typed_one(&format!("select max(id), {breaking} from {migrations}"), &[])
        .await
        .map_err(read)?;
    found.revision = row.get::<_, Option<i32>>(0).map(|number| (number, row.get::<_, Option<i32>>(1).unwrap_or(0)));
    Ok(found)
}

/// Whether somebody writes to the table of migrations at this moment.
async fn is_being_migrated(session: &Session) -> Result<bool, MigrateError> {
    const SQL: &str = "
    select exists (
      select from pg_catalog.pg_locks as lock
      join pg_catalog.pg_class as class on class.oid = lock.relation
      join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
      where lock.database = (select oid from pg_catalog.pg_database where datname = current_database())
        and lock.mode = 'RowExclusiveLock'
        and lock.pid <> pg_backend_pid()
        and class.relname = 'migrations'
        and namespace.nspname = $1
    )";
    let row = session.client().query_typed_one(SQL, &[(&session.database().schema(), Type::TEXT)]).await;
    Ok(row.map_err(|error| QueueError::statement("look at the schema", &error))?.get(0))
}

async fn install(session: &mut Session, found: &Found) -> Result<(), tokio_postgres::Error> {
    let statements = session.database().render(INSTALL);
    let schema = quote_identifier(&found.schema);
    let transaction = session.client_mut().transaction().await?;
    if !found.schema_exists {
        transaction.batch_execute(&format!("create schema if not exists {schema}")).await?;
    }
    if found.has_migrations && !found.has_breaking {
        let column = "add column if not exists breaking boolean default false not null";
        transaction.batch_execute(&format!("alter table {schema}.migrations {column}")).await?;
    }
    transaction.batch_execute(&statements).await?;
    transaction.commit().await
}

/// Two installers at once: a row, a schema or a table was there first.
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

impl Found {
    fn check(&self, number: i32, newest_breaking: i32) -> Result<(), MigrateError> {
        let (database, schema) = (self.database.clone(), self.schema.clone());
        if newest_breaking > NEWEST {
            return Err(MigrateError::NewerBreaking { database, schema, number, breaking: newest_breaking });
        }
        if self.rows_hidden {
            return Err(MigrateError::RowsHidden { database, schema, role: self.role.clone() });
        }
        Ok(())
    }

    fn too_old(&self, number: i32) -> MigrateError {
        let (database, schema) = (self.database.clone(), self.schema.clone());
        if number == 11 && !self.has_breaking && self.has_task_identifiers {
            return MigrateError::Kongtask { database, schema };
        }
        MigrateError::TooOld { database, schema, number }
    }

    fn in_the_way(&self, error: &tokio_postgres::Error) -> MigrateError {
        let reason = QueueError::statement("install the schema", error).reason();
        MigrateError::InTheWay { database: self.database.clone(), schema: self.schema.clone(), reason }
    }

    fn install_error(&self, error: &tokio_postgres::Error) -> MigrateError {
        if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
            return MigrateError::MayNotInstall {
                database: self.database.clone(),
                schema: self.schema.clone(),
                role: self.role.clone(),
                reason: error.as_db_error().map_or_else(|| error.to_string(), |answer| answer.message().to_owned()),
            };
        }
        QueueError::statement("install the schema", error).into()
    }
}
