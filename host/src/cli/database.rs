//! The database of a command: the configured one, or that of the embedded Postgres which runs in this folder.

use tokio_postgres::error::SqlState;

use crate::{
    admin::Admin,
    config::{self, ConnectionError, Layer},
    embedded_postgres::EmbeddedPostgres,
    queue::{Database, DatabaseSettings, QueueError, RowAccess},
};

use super::{CliError, options::variable};

/// A database, and what keeps it there.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) settings: DatabaseSettings,
    /// The server does not stop before this is dropped.
    _server: Option<EmbeddedPostgres>,
}

impl Connected {
    /// The configured database. Where none is, the embedded Postgres that `taskbay dev` runs here or in a folder above.
    pub(super) async fn find(layer: &Layer) -> Result<Self, CliError> {
        let server = if config::is_configured(layer, variable) {
            None
        } else {
            let here = std::env::current_dir().map_err(CliError::system("find the current folder"))?;
            EmbeddedPostgres::find_running(&here).await?
        };
        let settings = settings(layer, server.as_ref())?;
        Ok(Self { settings, _server: server })
    }

    /// The database, and an administrator's session in it whose role has this access to the rows. Where row-level security may
    /// hide some of them, the log says so.
    pub(super) async fn open(&self, access: RowAccess) -> Result<(Database, Admin), CliError> {
        let database = Database::new(self.settings.clone())?;
        let admin = Admin::open(&database, access).await?;
        if let Some(limits) = admin.limits() {
            let limits = limits.to_string().replace('\n', " ");
            tracing::warn!(event = "row_security", "some jobs may be missing here: {limits}");
        }
        Ok((database, admin))
    }
}

/// Says of a statement that failed because there is nothing to work on, what to do about it.
pub(super) fn explain(database: &Database) -> impl Fn(QueueError) -> CliError {
    move |error| match error.code().map(|code| code.code()) {
        // No such schema, table, function, type or column.
        Some("3F000" | "42P01" | "42883" | "42704" | "42703") => CliError::NotInstalled {
            schema: database.schema().to_owned(),
            database: database.name().to_owned(),
            error: Box::new(error),
        },
        _ => error.into(),
    }
}

/// As [`explain`], for adding jobs, which row-level security refuses in words that do not name it.
pub(super) async fn explain_refusal(database: &Database, error: QueueError) -> CliError {
    if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
        && let Ok(session) = database.session().await
        && let Ok(Some(limits)) = session.check_row_security(RowAccess::Add).await
    {
        return QueueError::from(limits).into();
    }
    explain(database)(error)
}

/// The settings for the embedded server, or else for the configured database.
pub(super) fn settings(layer: &Layer, server: Option<&EmbeddedPostgres>) -> Result<DatabaseSettings, CliError> {
    Ok(match server {
        None => config::database_settings(layer, variable).map_err(or_stopped)?,
        Some(server) => {
            let layer = Layer { connection: Some(server.url().to_owned()), ..layer.clone() };
            // What the environment says of other servers is not for this one.
            config::database_settings(&layer, |_| None)?
        }
    })
}

/// Where no database is configured: whether there is one here that merely does not run.
fn or_stopped(error: ConnectionError) -> CliError {
    let here = || std::env::current_dir().ok();
    match &error {
        ConnectionError::Missing => here().as_deref().and_then(EmbeddedPostgres::find_stopped),
        _ => None,
    }
    .map_or_else(|| error.into(), CliError::Stopped)
}

/// Gives up an embedded server, and says so if it was stopped by that.
pub(super) async fn stop(server: EmbeddedPostgres) {
    let folder = server.folder().to_owned();
    if server.stop().await {
        let folder = folder.display();
        tracing::info!(
            event = "embedded_postgres_stopped",
            "stopped the private Postgres in {folder}; its data are kept for the next start"
        );
    }
}

/// The settings with the database's address in the place where plugins that may know it find it, wherever it comes from; unless
/// the `PG*` variables name it, which plugins inherit.
pub(super) fn known_to_plugins(layer: Layer, server: Option<&EmbeddedPostgres>) -> Layer {
    let by_variables =
        || ["PGDATABASE", "PGSERVICE"].iter().any(|name| variable(name).is_some_and(|it| !it.is_empty()));
    let connection = match server {
        Some(server) => Some(server.url().to_owned()),
        None => layer.connection.clone().or_else(|| layer.file_connection.clone().filter(|_| !by_variables())),
    };
    Layer { connection, ..layer }
}
