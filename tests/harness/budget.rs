//! A role whose statements end when they have read so many jobs, however fast or slow the machine is.

use tokio_postgres::Config;

use super::postgres::TestDatabase;

/// What happens to a statement that reads more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// It is cancelled.
    Cancelled,
    /// It goes on for so long that somebody else has to end it.
    Endless,
}

/// A policy counts the rows of each statement. It is so cheap for the planner that it is asked before all other conditions.
const POLICY: &str = "
create function spend_budget() returns boolean language plpgsql cost 0.0001 as $$
declare
  spent int := 1;
begin
  if current_setting('budget.statement', true) = statement_timestamp()::text then
    spent := current_setting('budget.spent')::int + 1;
  end if;
  perform set_config('budget.statement', statement_timestamp()::text, false), set_config('budget.spent', spent::text, false);
  if spent > @rows@ then
    @beyond@;
  end if;
  return true;
end $$;
create policy budget on graphile_worker._private_jobs using (spend_budget());
create policy everything on graphile_worker._private_job_queues using (true);
create policy everything on graphile_worker._private_tasks using (true);
drop role if exists @role@;
create role @role@ login;
grant usage on schema graphile_worker to @role@;
grant all on all tables in schema graphile_worker to @role@";

/// How to connect as that role. With the database, call [`remove`] in the end.
pub async fn role_with_budget(database: &TestDatabase, rows: i32, beyond: Beyond) -> Config {
    let role = name(database);
    let beyond = match beyond {
        Beyond::Cancelled => "raise query_canceled using message = 'canceling statement: it reads too much'",
        Beyond::Endless => "perform pg_sleep(3600)",
    };
    let text = POLICY.replace("@rows@", &rows.to_string()).replace("@beyond@", beyond).replace("@role@", &role);
    database.client().await.batch_execute(&text).await.expect("a role with a budget");
    let mut config = database.config();
    config.user(role);
    config
}

/// Roles outlive databases.
pub async fn remove(database: &TestDatabase) {
    let role = name(database);
    database.client().await.batch_execute(&format!("drop owned by {role}; drop role {role}")).await.expect("drop it");
}

fn name(database: &TestDatabase) -> String {
    format!("budget_of_{}", database.config().get_dbname().expect("a name"))
}
