//! Which database: a connection string, completed by the `PG*` variables and by defaults as `psql` has them.
//!
//! No message here may contain a password, so none contains the connection string.

use std::{path::Path, time::Duration};

use thiserror::Error;
use tokio_postgres::{Config, config::SslMode};

use super::Layer;
use crate::queue::DatabaseSettings;

/// The schema that graphile-worker has unless told otherwise.
const SCHEMA: &str = "graphile_worker";
/// Where Debian and others, and where Postgres itself, put the server's socket.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Why it is not known which database to use.
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
    Variable { variable: &'static str, value: String, expected: &'static str },
    #[error("the schema's name is {0:?}: it must have from 1 to 63 bytes and no NUL")]
    Schema(String),
}

/// Whether the user named a database in any way.
pub fn is_configured(layer: &Layer, variable: impl Fn(&str) -> Option<String>) -> bool {
    layer.connection.is_some()
        || layer.file_connection.is_some()
        || ["PGDATABASE", "PGHOST"].iter().any(|name| variable(name).is_some_and(|value| !value.is_empty()))
}

/// The database that the layers and the environment name.
pub fn database_settings(
    layer: &Layer,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<DatabaseSettings, ConnectionError> {
    let set = |name: &'static str| variable(name).filter(|value| !value.is_empty());
    let given = match (&layer.connection, set("PGDATABASE"), &layer.file_connection) {
        (Some(text), _, _) => read(text, "--connection or DATABASE_URL")?,
        (None, None, Some(text)) => read(text, "[database] url")?,
        (None, Some(_), _) => Config::new(),
        (None, None, None) if set("PGHOST").is_some() => Config::new(),
        (None, None, None) => return Err(ConnectionError::Missing),
    };
    let schema = layer.schema.clone().unwrap_or_else(|| SCHEMA.to_owned());
    if !(1..=63).contains(&schema.len()) || schema.contains('\0') {
        return Err(ConnectionError::Schema(schema));
    }
    let default = DatabaseSettings::new(complete(given, set)?, schema);
    Ok(DatabaseSettings {
        max_pool_size: layer.max_pool_size.unwrap_or(default.max_pool_size),
        prepared_statements: layer.prepared_statements.unwrap_or(default.prepared_statements),
        ..default
    })
}

fn read(text: &str, place: &'static str) -> Result<Config, ConnectionError> {
    text.parse().map_err(|error: tokio_postgres::Error| ConnectionError::Unreadable { place, reason: reason(&error) })
}

/// The driver's reason, unless it quotes a piece of the text that is not plainly the name of an option: such a piece may
/// be the end of a password with a blank in it.
fn reason(error: &tokio_postgres::Error) -> String {
    let reason = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    match reason.strip_prefix("unknown option `").and_then(|rest| rest.strip_suffix('`')) {
        Some(option) if ["sslrootcert", "sslcert", "sslkey", "schema", "service", "passfile"].contains(&option) => {
            reason
        }
        Some(_) => "it has an unknown option".to_owned(),
        None if reason.contains("sslmode") => format!("{reason} (disable, prefer and require are known)"),
        None => reason,
    }
}

/// Fills in what the connection string leaves open.
fn complete(mut config: Config, set: impl Fn(&'static str) -> Option<String>) -> Result<Config, ConnectionError> {
    let number = |variable: &'static str, expected: &'static str| {
        set(variable)
            .map(|value| value.parse::<u32>().map_err(|_| ConnectionError::Variable { variable, value, expected }))
            .transpose()
    };
    if config.get_ports().is_empty()
        && let Some(port) = number("PGPORT", "a port from 1 to 65535")?
    {
        let wrong = |_| ConnectionError::Variable {
            variable: "PGPORT",
            value: port.to_string(),
            expected: "a port from 1 to 65535",
        };
        config.port(u16::try_from(port).map_err(wrong)?);
    }
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        match set("PGHOST") {
            Some(hosts) => hosts.split(',').for_each(|host| {
                config.host(host);
            }),
            None => {
                let port = config.get_ports().first().copied().unwrap_or(5432);
                config.host(default_host(port));
            }
        }
    }
    if config.get_user().is_none() {
        config.user(
            set("PGUSER").or_else(|| set("USER")).or_else(|| set("LOGNAME")).unwrap_or_else(|| "postgres".to_owned()),
        );
    }
    if config.get_password().is_none()
        && let Some(password) = set("PGPASSWORD")
    {
        config.password(password);
    }
    if config.get_dbname().is_none() {
        let user = config.get_user().unwrap_or_default().to_owned();
        config.dbname(set("PGDATABASE").unwrap_or(user));
    }
    if config.get_application_name().is_none() {
        config.application_name(set("PGAPPNAME").unwrap_or_else(|| "taskbay".to_owned()));
    }
    if config.get_connect_timeout().is_none()
        && let Some(seconds) = number("PGCONNECT_TIMEOUT", "a number of seconds")?.filter(|seconds| *seconds > 0)
    {
        config.connect_timeout(Duration::from_secs(seconds.into()));
    }
    // The driver cannot tell a stated `prefer` from its default; the variable then says more than nothing.
    if config.get_ssl_mode() == SslMode::Prefer
        && let Some(mode) = set("PGSSLMODE")
    {
        config.ssl_mode(match mode.as_str() {
            "disable" => SslMode::Disable,
            "allow" | "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            _ => {
                let expected = "disable, allow, prefer or require";
                return Err(ConnectionError::Variable { variable: "PGSSLMODE", value: mode, expected });
            }
        });
    }
    Ok(config)
}

/// The folder of a local server's socket, or else this machine by name.
fn default_host(port: u16) -> &'static str {
    SOCKET_FOLDERS
        .into_iter()
        .find(|folder| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists())
        .unwrap_or("localhost")
}

#[cfg(test)]
mod tests {
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
            "host=h password=topsecret sslmode=verify-full",
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
