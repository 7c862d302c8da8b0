//! Row-level security hides rows instead of refusing a statement: a role without a policy is told that there are no jobs.
//! So the catalog is asked first which rows a role may see and change.
//!
//! Every private table of the schema has row-level security, and no policy. The owner, superusers and roles with BYPASSRLS are
//! exempt, unless the owner has forced it upon itself.

use std::fmt::Write as _;

use thiserror::Error;
use tokio_postgres::types::{ToSql, Type};

use super::{QueueError, Session, connection::quote_identifier};

/// What is to be done with the rows of the private tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowAccess {
    /// Look at jobs.
    Read,
    /// Change and delete jobs.
    Change,
    /// Everything that a worker does.
    Work,
}

/// What row-level security keeps a role from.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", sentence(self))]
pub struct RowSecurityError {
    role: String,
    owner: String,
    /// The role is, or may act as, the owner.
    owned: bool,
    database: String,
    schema: String,
    limits: Vec<Limit>,
}

/// A command on a table that row-level security limits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit {
    table: String,
    command: String,
    /// A policy allows it for some rows, and perhaps for all: this program cannot tell.
    some: bool,
}

/// $1 schema, $2 tables, $3 letters of commands as `pg_policy` has them. A command is unlimited if a permissive policy allows it
/// for all rows and no restrictive one takes any away; then the conditions read `true`. A policy without a condition for new rows
/// applies the one for old rows to them.
const LIMITS: &str = "
with
  relation as (
    select
      class.oid,
      class.relname,
      pg_catalog.pg_get_userbyid(class.relowner)::text as owner,
      pg_catalog.pg_has_role(current_user, class.relowner, 'USAGE') as owned
    from pg_catalog.pg_class as class
    join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
    where namespace.nspname = $1
      and class.relname = any ($2)
      and class.relkind in ('r', 'p')
      and pg_catalog.row_security_active(class.oid)
  ),
  policy as (
    select
      policy.polrelid,
      policy.polpermissive as permissive,
      letter,
      case letter
        when 'a' then coalesce(for_new, for_old)
        when 'w' then for_old and coalesce(for_new, for_old)
        else for_old
      end is true as for_all
    from pg_catalog.pg_policy as policy
    join relation on relation.oid = policy.polrelid
    cross join unnest($3) as letter
    cross join lateral (
      select
        pg_catalog.pg_get_expr(policy.polqual, policy.polrelid) = 'true' as for_old,
        pg_catalog.pg_get_expr(policy.polwithcheck, policy.polrelid) = 'true' as for_new
    ) as condition
    where policy.polcmd::text in (letter, '*')
      and exists (
        select
        from unnest(policy.polroles) as role
        where role = 0 or pg_catalog.pg_has_role(current_user, role, 'USAGE')
      )
  )
select
  current_user::text,
  relation.owner,
  relation.owned,
  relation.relname::text,
  case command.letter when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' else 'delete' end,
  coalesce(bool_or(policy.permissive), false)
from relation
cross join unnest($3) with ordinality as command (letter, place)
left join policy on policy.polrelid = relation.oid and policy.letter = command.letter
group by relation.relname, relation.owner, relation.owned, command.letter, command.place
having not coalesce(bool_or(policy.for_all) filter (where policy.permissive), false)
  or not coalesce(bool_and(policy.for_all) filter (where not policy.permissive), true)
order by relation.relname, command.place";

impl RowAccess {
    fn tables(self) -> &'static [&'static str] {
        match self {
            Self::Read | Self::Change => &["_private_jobs", "_private_job_queues", "_private_tasks"],
            Self::Work => &["_private_jobs", "_private_job_queues", "_private_tasks", "_private_known_crontabs"],
        }
    }

    fn commands(self) -> &'static [&'static str] {
        match self {
            Self::Read => &["r"],
            Self::Change => &["r", "w", "d"],
            Self::Work => &["r", "a", "w", "d"],
        }
    }
}

impl RowSecurityError {
    /// There are rows that the role sees or may change: each command is allowed for some.
    pub fn is_partial(&self) -> bool {
        self.limits.iter().all(|limit| limit.some)
    }
}

impl Session {
    /// What row-level security keeps this session's role from, if anything. A database without the schema limits nothing.
    pub async fn check_row_security(&self, access: RowAccess) -> Result<Option<RowSecurityError>, QueueError> {
        const WHAT: &str = "look at row-level security";
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let (schema, tables, commands) = (self.database().schema(), access.tables(), access.commands());
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&schema, Type::TEXT), (&tables, Type::TEXT_ARRAY), (&commands, Type::TEXT_ARRAY)];
        let asked = self.client().query_typed(LIMITS, &parameters);
        let rows = self.database().health().answer(WHAT, asked).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let limit = |row: &tokio_postgres::Row| {
            Ok(Limit { table: row.try_get(3)?, command: row.try_get(4)?, some: row.try_get(5)? })
        };
        let limits: Vec<Limit> = rows.iter().map(limit).collect::<Result<_, _>>().map_err(read)?;
        // The tables of locks and names are of no use to those who change jobs by functions that do not touch them.
        let limits: Vec<Limit> = limits.into_iter().filter(|limit| access.needs(limit)).collect();
        if limits.is_empty() {
            return Ok(None);
        }
        Ok(Some(RowSecurityError {
            role: first.try_get(0).map_err(read)?,
            owner: first.try_get(1).map_err(read)?,
            owned: first.try_get(2).map_err(read)?,
            database: self.database().name().to_owned(),
            schema: schema.to_owned(),
            limits,
        }))
    }
}

impl RowAccess {
    /// Those who only look at jobs and change them leave the other tables as they are.
    fn needs(self, limit: &Limit) -> bool {
        self == Self::Work || limit.table == "_private_jobs" || limit.command == "select"
    }
}

fn sentence(error: &RowSecurityError) -> String {
    let RowSecurityError { role, owner, owned, database, schema, limits } = error;
    let mut text = match owned {
        true => format!(
            "role {role} owns the tables of schema {schema} in {database}, but row-level security is forced on them"
        ),
        false => format!(
            "role {role} does not own the tables of schema {schema} in {database}, which have row-level security"
        ),
    };
    if error.is_partial() {
        text.push_str(", and no policy is certain to allow it ");
    } else {
        text.push_str(", and no policy allows it ");
    }
    let _ = write!(text, "to {}", commands_by_table(limits));
    if !error.is_partial() {
        text.push_str(", so that it would find no jobs, or could not change them");
    }
    let quoted = quote_identifier(schema);
    let tables: Vec<&str> = {
        let mut tables: Vec<&str> = limits.iter().map(|limit| limit.table.as_str()).collect();
        tables.dedup();
        tables
    };
    let each = |statement: &str| {
        let all: Vec<String> =
            tables.iter().map(|table| statement.replace("@table@", &format!("{quoted}.{table}"))).collect();
        all.join(" ")
    };
    match owned {
        true => {
            let _ = write!(text, ". As {role}, lift it: {}", each("alter table @table@ no force row level security;"));
        }
        false => {
            // A policy of its own for each role, because a table has one of a name.
            let (policy, role) = (quote_identifier(&format!("taskbay_{role}")), quote_identifier(role));
            let policy = format!("create policy {policy} on @table@ to {role} using (true) with check (true);");
            let _ = write!(text, ". Connect as {owner}, or let {owner} allow it: {}", each(&policy));
        }
    }
    text
}

/// `select, update and delete all rows of _private_jobs, and to select all rows of _private_tasks`
fn commands_by_table(limits: &[Limit]) -> String {
    let mut parts: Vec<(String, Vec<&str>)> = Vec::new();
    for chunk in limits.chunk_by(|one, other| one.table == other.table) {
        let commands = listed(&chunk.iter().map(|limit| limit.command.as_str()).collect::<Vec<_>>());
        match parts.iter_mut().find(|(known, _)| *known == commands) {
            Some((_, tables)) => tables.push(&chunk[0].table),
            None => parts.push((commands, vec![&chunk[0].table])),
        }
    }
    let parts: Vec<String> =
        parts.iter().map(|(commands, tables)| format!("{commands} all rows of {}", listed(tables))).collect();
    parts.join(", and to ")
}

/// `a, b and c`
fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
