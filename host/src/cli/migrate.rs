//! `taskbay migrate`: installs the schema, or brings it to a later revision.

use clap::Args;

use super::{
    CliError, Ending, database::Connected, options::DatabaseOptions, output::Text, print, whole_number::whole_number,
};
use crate::{
    config::Layer,
    migrate::{self, NEWEST, OLDEST, Plan, Upgrade},
    queue::Database,
};

/// Install the schema in a database, or upgrade it
///
/// A fresh database gets revision 20. One that graphile-worker made, of any of its releases, is upgraded with all its jobs,
/// queues and schedules, all at once or not at all. `taskbay run` never does that: it installs the schema where there is
/// none, works a database at revision 18, 19 or 20 as it finds it, and refuses older ones.
///
/// Workers of graphile-worker live with the revisions that they know: 0.18 and 0.17 with all from 19 on, 0.16 with 18 alone.
/// This says beforehand what becomes of those that are at work.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay migrate -c postgres://owner@localhost/app
  taskbay migrate --dry-run                 say what would be done, and what becomes of workers that are at work
  taskbay migrate --to 18                   go no further than workers of graphile-worker 0.16 can follow
  taskbay migrate --schema billing_jobs")]
pub(super) struct Migrate {
    /// Stop at this revision, from 18 to 20; a database that is further stays as it is
    #[arg(long, value_name = "REVISION", default_value_t = NEWEST,
        value_parser = whole_number::<i32>(i64::from(OLDEST)..=i64::from(NEWEST)))]
    to: i32,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    database: DatabaseOptions,
}

impl Migrate {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        self.database.add_to(layer);
    }

    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let connected = Connected::find(&settings).await?;
        let database = Database::new(connected.settings.clone())?;
        let plan = migrate::plan(&database, self.to).await?;
        let work_to_do = !plan.steps.is_empty();
        if self.dry_run {
            if work_to_do {
                print(describe(&plan, &database))?;
            } else {
                say_nothing_to_do(&database, plan.from.unwrap_or_default())?;
            }
            return plan.refusal.map_or(Ok(Ending::Success), |refusal| Err(refusal.into()));
        }
        // A database without a schema has no workers either, and nothing that could become of them.
        if work_to_do && plan.from.is_some() {
            print(describe(&plan, &database))?;
        }
        let Upgrade { from, revision } = migrate::upgrade(&database, self.to).await?;
        let (schema, name) = (database.schema(), database.name());
        match from {
            Some(from) if from < revision.number => {
                let to = revision.number;
                say_done(format!("upgraded schema {schema} in {name}, from revision {from} to {to}"))?;
            }
            Some(_) => say_nothing_to_do(&database, revision.number)?,
            None => say_done(format!("installed schema {schema} in {name}, at revision {}", revision.number))?,
        }
        if let Some(warning) = revision.warning() {
            tracing::warn!(event = "newer_revision", "{warning}");
        }
        Ok(Ending::Success)
    }
}

/// Prepares the database as `taskbay run` does, and says what it was found to be.
pub(super) async fn prepare(database: &Database) -> Result<Ending, CliError> {
    let revision = migrate::prepare(database).await?;
    if revision.installed {
        let (schema, name) = (database.schema(), database.name());
        say_done(format!("installed schema {schema} in {name}, at revision {}", revision.number))?;
    } else {
        say_nothing_to_do(database, revision.number)?;
    }
    if let Some(warning) = revision.warning() {
        tracing::warn!(event = "newer_revision", "{warning}");
    }
    Ok(Ending::Success)
}

fn say_done(done: String) -> Result<(), CliError> {
    print(&format!("{done}\n")).map_err(CliError::after_change(done))
}

fn say_nothing_to_do(database: &Database, number: i32) -> Result<(), CliError> {
    let (schema, name) = (database.schema(), database.name());
    print(&format!("nothing to do: found schema {schema} in {name}, at revision {number}\n"))
}

/// What is going to be done, and to whom.
fn describe(plan: &Plan, database: &Database) -> Text {
    let (schema, name) = (database.schema(), database.name());
    let mut text = Text::default();
    match plan.from {
        Some(from) => text.line(format_args!("schema {schema} in {name} is at revision {from}; the way is")),
        None => text.line(format_args!("{name} has no schema {schema}; the way is")),
    }
    for step in &plan.steps {
        let mark = if step.breaking { "breaking" } else { "" };
        text.line(format_args!("  {:>2} {mark:8}  {}", step.number, step.what));
    }
    if let Some(consequence) = plan.consequence {
        text.line(consequence);
    }
    if plan.workers.locks.jobs() > 0 {
        text.line(format_args!("at this moment {}", plan.workers.locks.sentence()));
    }
    match plan.workers.listeners {
        0 => {}
        1 => text.line("at this moment 1 other worker waits for jobs in this database"),
        count => text.line(format_args!("at this moment {count} other workers wait for jobs in this database")),
    }
    text
}
