//! The connection to the database: a connection string as for `psql`, completed by a service, the `PG*` variables and
//! defaults.
//!
//! No message may contain a password, so none contains a part of a connection string.

mod parameters;
mod service;
mod settings;
mod string;
mod text;
mod url;

use std::{collections::BTreeMap, path::PathBuf};

use thiserror::Error;

pub use string::{ConnectionString, ConnectionStringError};

use super::Layer;
use crate::queue::DatabaseSettings;
use settings::{Origin, Value, Values};

/// The default schema of graphile-worker.
const SCHEMA: &str = "graphile_worker";

/// The reason why the database cannot be determined.
#[derive(Debug, Error)]
pub enum ConnectionError {
    #[error(
        "no database is configured. Name one with --connection postgres://user:password@host/database, \
         with DATABASE_URL or PGDATABASE in the environment, or as url in the section [database] of taskbay.toml; \
         or add --embedded-postgres to `taskbay run`, or use `taskbay dev`, which bring their own"
    )]
    Missing,
    #[error(
        "the connection string in {place} cannot be used: {reason}. \
         Write it as postgres://user:password@host:5432/database, with special characters in the password as %XX"
    )]
    Unreadable { place: &'static str, reason: String },
    #[error("{variable} is {value:?}, which is not {expected}")]
    Variable { variable: &'static str, value: String, expected: String },
    /// `origin` is the place of the setting.
    #[error("{parameter} in {origin} is not {expected}")]
    Value { parameter: &'static str, origin: String, expected: String },
    #[error("{parameter} in {origin} cannot be obeyed: {why}")]
    Refused { parameter: &'static str, origin: String, why: String },
    #[error("the service {service:?} is defined neither in {files}")]
    NoService { service: String, files: String },
    #[error("the service file {} cannot be used: {reason}", path.display())]
    ServiceFile { path: PathBuf, reason: String },
    #[error("the schema's name is {0:?}: it must have from 1 to 63 bytes and no NUL")]
    Schema(String),
}

/// Whether any source names a database.
pub fn is_configured(layer: &Layer, variable: impl Fn(&str) -> Option<String>) -> bool {
    layer.connection.is_some()
        || layer.file_connection.is_some()
        || ["PGDATABASE", "PGSERVICE", "PGHOST", "PGHOSTADDR"]
            .iter()
            .any(|name| variable(name).is_some_and(|value| !value.is_empty()))
}

/// The database named by the layers and the environment.
///
/// Parameters missing in the connection string come from the service named by it or by `PGSERVICE`, then from the `PG*`
/// variables, then from libpq's defaults.
pub fn database_settings(
    layer: &Layer,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<DatabaseSettings, ConnectionError> {
    let set = |name: &'static str| variable(name).filter(|value| !value.is_empty());
    let named = |names: &[&'static str]| names.iter().any(|name| set(name).is_some());
    let given = match (&layer.connection, &layer.file_connection) {
        (Some(text), _) => read(text, "--connection or DATABASE_URL")?,
        (None, _) if named(&["PGDATABASE", "PGSERVICE"]) => Values::default(),
        (None, Some(text)) => read(text, "[database] url")?,
        (None, None) if named(&["PGHOST", "PGHOSTADDR"]) => Values::default(),
        (None, None) => return Err(ConnectionError::Missing),
    };
    let schema = layer.schema.clone().unwrap_or_else(|| SCHEMA.to_owned());
    if !(1..=63).contains(&schema.len()) || schema.contains('\0') {
        return Err(ConnectionError::Schema(schema));
    }
    let default = settings::settle(&complete(given, set)?, schema, set)?;
    Ok(DatabaseSettings {
        max_pool_size: layer.max_pool_size.unwrap_or(default.max_pool_size),
        prepared_statements: layer.prepared_statements.unwrap_or(default.prepared_statements),
        ..default
    })
}

fn read(text: &str, place: &'static str) -> Result<Values, ConnectionError> {
    let read: ConnectionString = text
        .parse()
        .map_err(|error: ConnectionStringError| ConnectionError::Unreadable { place, reason: error.to_string() })?;
    let value = |text: &str| Value { text: text.to_owned(), origin: Origin::Text(place) };
    Ok(read.values().map(|(name, text)| (name, value(text))).collect::<BTreeMap<_, _>>().into())
}

/// Adds the service's parameters, then the variables', without replacing earlier ones.
fn complete(mut values: Values, set: impl Fn(&'static str) -> Option<String>) -> Result<Values, ConnectionError> {
    let find = |values: &Values, name: &'static str, variable: &'static str| match values.raw(name) {
        Some(value) => Some(value.text.clone()).filter(|text| !text.is_empty()),
        None => set(variable),
    };
    if let Some(service) = find(&values, "service", "PGSERVICE") {
        let file = find(&values, "servicefile", "PGSERVICEFILE");
        let (path, found) = service::read(&service, file.as_deref(), &set)?;
        for (name, text) in found {
            values.add(name, Value { text, origin: Origin::Service(path.clone()) });
        }
    }
    for parameter in parameters::PARAMETERS {
        if let Some(variable) = parameter.variable
            && let Some(text) = set(variable)
        {
            values.add(parameter.name, Value { text, origin: Origin::Variable(variable) });
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_postgres::config::Host;

    use super::*;

    fn resolve(
        connection: Option<&str>,
        file: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Result<DatabaseSettings, String> {
        let layer = Layer {
            connection: connection.map(str::to_owned),
            file_connection: file.map(str::to_owned),
            ..Layer::default()
        };
        database_settings(&layer, |name| {
            environment.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn a_connection_string_is_completed_by_the_environment() {
        let environment =
            [("PGPASSWORD", "secret"), ("PGUSER", "other"), ("PGAPPNAME", "app"), ("PGCONNECT_TIMEOUT", "3")];
        let config = resolve(Some("postgres://me@db.example/jobs"), None, &environment).unwrap().config;
        assert_eq!((config.get_user(), config.get_dbname()), (Some("me"), Some("jobs")));
        assert_eq!(config.get_password(), Some(&b"secret"[..]));
        assert_eq!(config.get_application_name(), Some("app"));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    }

    #[test]
    fn the_variables_alone_are_enough() {
        let environment = [("PGHOST", "/run/pg,db"), ("PGPORT", "5433"), ("PGDATABASE", "jobs"), ("PGUSER", "me")];
        let config = resolve(None, Some("postgres://file/other"), &environment).unwrap().config;
        assert_eq!(config.get_hosts(), [Host::Unix("/run/pg".into()), Host::Tcp("db".into())]);
        assert_eq!((config.get_ports(), config.get_dbname()), (&[5433][..], Some("jobs")));
        let only_host = resolve(None, None, &[("PGHOST", "db"), ("USER", "me")]).unwrap().config;
        assert_eq!((only_host.get_user(), only_host.get_dbname()), (Some("me"), Some("me")));
    }

    #[test]
    fn the_file_is_used_where_nothing_else_names_a_database() {
        let config = resolve(None, Some("postgres://db/jobs"), &[("PGHOST", "other")]).unwrap().config;
        assert_eq!(config.get_hosts(), [Host::Tcp("db".into())]);
        assert!(resolve(None, None, &[]).unwrap_err().contains("no database is configured"));
    }

    #[test]
    fn no_message_contains_a_password() {
        for text in [
            "postgres://me:topsecret@host:notaport/db",
            "postgres://me:topsecret@host/db?topsecret=1",
            "host=h password=a topsecret=b",
            "host=h password=topsecret sslmode=verify-fuller",
            "host=h password=topsecret keepalives=topsecret",
            "host=h password=top'secret\\ topsecret sslmode='topsecret",
            "postgres://me:1/topsecret@host/db",
            "postgres://me:p@topsecret@host/db",
            "postgres://me:1/2?topsecret@host/db",
            "postgres://me:x@host/db?sslcrl=topsecret",
            "postgres://me:x@host:topsecret/db",
            "postgres://me:x@[topsecret/db",
            "topsecret",
            "postgres://me:%topsecret@host/db?sslmode=maybe",
        ] {
            let refused = resolve(Some(text), None, &[]).unwrap_err();
            assert!(!refused.contains("topsecret"), "{refused}");
        }
    }

    #[test]
    fn a_wrong_variable_is_named() {
        for (variable, value) in
            [("PGPORT", "many"), ("PGPORT", "70000"), ("PGSSLMODE", "maybe"), ("PGCONNECT_TIMEOUT", "soon")]
        {
            let refused = resolve(None, None, &[("PGHOST", "db"), (variable, value)]).unwrap_err();
            assert!(refused.contains(variable) && refused.contains(value), "{refused}");
        }
    }
}
