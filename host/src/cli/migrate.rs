//! `taskbay migrate`: makes the database ready.

use clap::Args;

use super::{CliError, Ending, database::Connected, options::DatabaseOptions, print};
use crate::{config::Layer, migrate, queue::Database};

/// Install the schema in a database, or see that it can be worked
///
/// `taskbay run` does the same at its start. Use this where the role that works jobs may not create schemas, or to prepare
/// a database before the first program adds jobs to it. A database that is ready stays as it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay migrate -c postgres://owner@localhost/app
  taskbay migrate --schema billing_jobs")]
pub(super) struct Migrate {
    #[command(flatten)]
    database: DatabaseOptions,
}

impl Migrate {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        self.database.add_to(layer);
    }

    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let connected = Connected::find(&settings).await?;
        prepare(&Database::new(connected.settings.clone())?).await
    }
}

/// Prepares the database and says what it was found to be.
pub(super) async fn prepare(database: &Database) -> Result<Ending, CliError> {
    let revision = migrate::prepare(database).await?;
    let (schema, name) = (database.schema(), database.name());
    let done = if revision.installed { "installed schema" } else { "nothing to do: found schema" };
    print(&format!("{done} {schema} in {name}, at revision {}\n", revision.number))?;
    if let Some(warning) = revision.warning() {
        tracing::warn!(event = "newer_revision", "{warning}");
    }
    Ok(Ending::Success)
}
