//! What a database is found to be before anything is done to it.

use super::{
    error::MigrateError,
    revisions::{NEWEST, OLDEST},
};
use tokio_postgres::{error::SqlState, types::Type};

use crate::queue::{QueueError, RowAccess, RowSecurityError, Session, quote_identifier, reason_of};

const OLDEST_SERVER: i32 = 120_000;

const WHAT: &str = "look at the schema";

/// What there is before anything is done.
pub(super) struct Found {
    pub(super) database: String,
    pub(super) schema: String,
    pub(super) role: String,
    pub(super) schema_exists: bool,
    pub(super) has_migrations: bool,
    pub(super) has_breaking: bool,
    has_task_identifiers: bool,
    row_security: Option<RowSecurityError>,
    /// The role that the table of jobs belongs to.
    owner: Option<String>,
    /// The newest revision and the newest breaking one; `None` before the first.
    pub(super) revision: Option<(i32, i32)>,
}

/// $1 the schema. The catalog is readable for everybody and takes no lock.
const LOOK: &str = "
with relation as (
  select class.oid, class.relname, class.relkind, class.relowner
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
  (
    select pg_catalog.pg_get_userbyid(relowner)::text from relation
    where relname in ('_private_jobs', 'jobs') and relkind = 'r'
    order by relname
    limit 1
  )";

pub(super) async fn look(session: &Session) -> Result<Found, MigrateError> {
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
        row_security: None,
        owner: row.get(8),
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
    // First, because a role without privileges is refused in words that do not say which it needs.
    found.row_security = session.check_row_security(RowAccess::Work).await?;
    if let Some(limits) = found.row_security.as_ref().filter(|limits| limits.hides_migrations()) {
        return Err(QueueError::from(limits.clone()).into());
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
pub(super) async fn is_being_migrated(session: &Session) -> Result<bool, MigrateError> {
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
    Ok(row.map_err(|error| QueueError::statement(WHAT, &error))?.get(0))
}

impl Found {
    /// The newest revision, 0 before the first.
    pub(super) fn number(&self) -> i32 {
        self.revision.map_or(0, |(number, _)| number)
    }

    /// Whether this program knows what it is, and whether its role may see and change all rows.
    pub(super) fn check(&self) -> Result<(), MigrateError> {
        let Some((number, newest_breaking)) = self.revision else { return Ok(()) };
        let (database, schema) = (self.database.clone(), self.schema.clone());
        if newest_breaking > NEWEST {
            return Err(MigrateError::NewerBreaking { database, schema, number, breaking: newest_breaking });
        }
        if number == 11 && !self.has_breaking && self.has_task_identifiers {
            return Err(MigrateError::Kongtask { database, schema });
        }
        match &self.row_security {
            Some(limits) => Err(QueueError::from(limits.clone()).into()),
            None => Ok(()),
        }
    }

    /// Whether it can be upgraded by this role.
    pub(super) fn check_owner(&self) -> Result<(), MigrateError> {
        match &self.owner {
            Some(owner) if self.number() < OLDEST && *owner != self.role => Err(MigrateError::NotOwner {
                database: self.database.clone(),
                schema: self.schema.clone(),
                role: self.role.clone(),
                owner: owner.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// The error for a step that the server refused.
    pub(super) fn refused(&self, to: i32, error: &tokio_postgres::Error) -> MigrateError {
        let (database, schema) = (self.database.clone(), self.schema.clone());
        let general = QueueError::statement("bring the schema to another revision", error);
        if general.is_temporary() {
            return general.into();
        }
        match self.revision {
            None if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => MigrateError::MayNotInstall {
                database,
                schema,
                role: self.role.clone(),
                reason: error.as_db_error().map_or_else(|| error.to_string(), |answer| answer.message().to_owned()),
            },
            None => QueueError::statement("install the schema", error).into(),
            Some((from, _)) => MigrateError::Failed { database, schema, from, to, reason: reason_of(error) },
        }
    }

    /// The error after so many rounds in which another program was in the way.
    pub(super) fn in_the_way(&self, rounds: usize, error: &tokio_postgres::Error) -> MigrateError {
        let (database, schema) = (self.database.clone(), self.schema.clone());
        MigrateError::InTheWay { database, schema, rounds, reason: reason_of(error) }
    }
}
