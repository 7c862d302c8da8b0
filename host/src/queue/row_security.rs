//! Row-level security hides rows instead of refusing a statement: a role without a policy is told that there are no jobs.
//! So the catalog is asked first which rows a role may see and change, and which privileges it lacks for that.
//!
//! Every private table of the schema has row-level security, and no policy. The owner, superusers and roles with BYPASSRLS are
//! exempt, unless the owner has forced it upon itself.

use tokio_postgres::types::{ToSql, Type};

use super::{
    QueueError, Session,
    row_security_error::{Limit, MIGRATIONS, RowSecurityError},
};

const JOBS: &str = "_private_jobs";
const QUEUES: &str = "_private_job_queues";
const TASKS: &str = "_private_tasks";
const CRONTABS: &str = "_private_known_crontabs";

/// What is to be done with the rows of the private tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowAccess {
    /// Look at jobs.
    Read,
    /// Look at the names of tasks.
    ReadTasks,
    /// Delete jobs.
    Delete,
    /// Change jobs.
    Update,
    /// Change and delete jobs.
    Change,
    /// Release the locks of jobs and queues.
    Unlock,
    /// Add jobs, or change those under the same keys.
    Add,
    /// Everything that a worker does.
    Work,
}

/// $1 schema, $2 and $3 tables and commands, as pairs. A command is unlimited if a permissive policy allows it for all rows and no
/// restrictive one takes any away; then the conditions read `true`. A policy without a condition for new rows applies the one for
/// old rows to them.
const LIMITS: &str = "
with
  needed as (
    select
      name, command, place,
      case command when 'select' then 'r' when 'insert' then 'a' when 'update' then 'w' else 'd' end as letter
    from unnest($2, $3) with ordinality as pair (name, command, place)
  ),
  relation as (
    select
      class.oid,
      class.relname::text as name,
      pg_catalog.pg_get_userbyid(class.relowner)::text as owner,
      pg_catalog.pg_has_role(current_user, class.relowner, 'USAGE') as owned,
      pg_catalog.row_security_active(class.oid) as secured,
      pg_catalog.has_schema_privilege(namespace.oid, 'USAGE') as usage
    from pg_catalog.pg_class as class
    join pg_catalog.pg_namespace as namespace on namespace.oid = class.relnamespace
    where namespace.nspname = $1
      and class.relname = any ($2)
      and class.relkind in ('r', 'p')
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
    cross join (select distinct letter from needed) as command
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
  relation.usage,
  relation.name,
  needed.command,
  relation.secured and (
    not coalesce(bool_or(policy.for_all) filter (where policy.permissive), false)
    or not coalesce(bool_and(policy.for_all) filter (where not policy.permissive), true)
  ),
  coalesce(bool_or(policy.permissive), false),
  case
    when needed.letter = 'd' then pg_catalog.has_table_privilege(relation.oid, needed.command)
    else pg_catalog.has_any_column_privilege(relation.oid, needed.command)
  end
from relation
join needed on needed.name = relation.name
left join policy on policy.polrelid = relation.oid and policy.letter = needed.letter
group by
  relation.oid, relation.name, relation.owner, relation.owned, relation.usage, relation.secured, needed.command, needed.letter,
  needed.place
order by relation.name, needed.place";

impl RowAccess {
    /// The commands that are used, by table. Those who look at jobs and change them leave the other tables as they are, but read
    /// the names there.
    fn needs(self) -> Vec<(&'static str, &'static str)> {
        const ALL: &[&str] = &["select", "insert", "update", "delete"];
        let tables: &[(&str, &[&str])] = match self {
            Self::ReadTasks => &[(TASKS, &["select"])],
            Self::Read => &[(JOBS, &["select"]), (QUEUES, &["select"]), (TASKS, &["select"])],
            Self::Delete => &[(JOBS, &["select", "delete"]), (QUEUES, &["select"]), (TASKS, &["select"])],
            Self::Update => &[(JOBS, &["select", "update"]), (QUEUES, &["select"]), (TASKS, &["select"])],
            Self::Change => &[(JOBS, &["select", "update", "delete"]), (QUEUES, &["select"]), (TASKS, &["select"])],
            Self::Unlock => &[(JOBS, &["select", "update"]), (QUEUES, &["select", "update"])],
            Self::Add => &[
                (JOBS, &["select", "insert", "update"]),
                (QUEUES, &["select", "insert"]),
                (TASKS, &["select", "insert"]),
            ],
            Self::Work => &[(JOBS, ALL), (QUEUES, ALL), (TASKS, ALL), (CRONTABS, ALL), (MIGRATIONS, &["select"])],
        };
        tables.iter().flat_map(|(table, commands)| commands.iter().map(|command| (*table, *command))).collect()
    }
}

impl Session {
    /// What keeps this session's role from the rows, if anything. A database without the schema limits nothing.
    pub async fn check_row_security(&self, access: RowAccess) -> Result<Option<RowSecurityError>, QueueError> {
        const WHAT: &str = "look at row-level security";
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let schema = self.database().schema();
        let (tables, commands): (Vec<&str>, Vec<&str>) = access.needs().into_iter().unzip();
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&schema, Type::TEXT), (&tables, Type::TEXT_ARRAY), (&commands, Type::TEXT_ARRAY)];
        let asked = self.client().query_typed(LIMITS, &parameters);
        let rows = self.database().health().answer(WHAT, asked).await?;
        let limit = |row: &tokio_postgres::Row| {
            Ok(Limit {
                table: row.try_get(4)?,
                command: row.try_get(5)?,
                secured: row.try_get(6)?,
                some: row.try_get(7)?,
                granted: row.try_get(8)?,
            })
        };
        let limits: Vec<Limit> = rows.iter().map(limit).collect::<Result<_, _>>().map_err(read)?;
        let limits: Vec<Limit> = limits.into_iter().filter(|limit| limit.secured || !limit.granted).collect();
        let Some(first) = rows.first() else { return Ok(None) };
        let usage = first.try_get(3).map_err(read)?;
        if usage && limits.is_empty() {
            return Ok(None);
        }
        Ok(Some(RowSecurityError {
            role: first.try_get(0).map_err(read)?,
            owner: first.try_get(1).map_err(read)?,
            owned: first.try_get(2).map_err(read)?,
            database: self.database().name().to_owned(),
            schema: schema.to_owned(),
            usage,
            limits,
        }))
    }
}
