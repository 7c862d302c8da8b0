//! Converts the parameters of a connection to checked settings, with libpq's defaults.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_postgres::config::{ChannelBinding, Config, LoadBalanceHosts, SslNegotiation};

use super::{
    ConnectionError,
    parameters::{self, Use},
};
use crate::queue::{DatabaseSettings, RootCertificates, TargetSession, TlsMode, TlsSettings, TlsVersions};

/// The folders of the server's socket: on Debian and others, and in Postgres itself.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
/// The maximum time limit.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The origin of a value.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// A connection string from this place.
    Text(&'static str),
    /// This service file.
    Service(PathBuf),
    /// This variable.
    Variable(&'static str),
}

/// A value as written. An empty value requests the default.
#[derive(Clone)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// All values, by the parameters' names.
#[derive(Default)]
pub(super) struct Values {
    values: BTreeMap<&'static str, Value>,
}

impl From<BTreeMap<&'static str, Value>> for Values {
    fn from(values: BTreeMap<&'static str, Value>) -> Self {
        Self { values }
    }
}

impl Values {
    /// Sets a value unless it is already set, even to an empty text.
    pub(super) fn add(&mut self, name: &'static str, value: Value) {
        self.values.entry(name).or_insert(value);
    }

    /// A value; may be empty.
    pub(super) fn raw(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.raw(name).map(|value| value.text.as_str()).filter(|text| !text.is_empty())
    }

    fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// A parsed value, or an error with the expected form.
    fn read<T>(
        &self,
        name: &'static str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ConnectionError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match read(text) {
            Some(meaning) => Ok(Some(meaning)),
            None => Err(self.wrong(name, expected)),
        }
    }

    /// A whole number, possibly negative.
    fn number(&self, name: &'static str, expected: &str) -> Result<Option<i64>, ConnectionError> {
        self.read(name, expected, |text| text.trim().parse::<i32>().ok().map(i64::from))
    }

    /// Zero or less requests the default.
    fn span(&self, name: &'static str, unit: Duration) -> Result<Option<Duration>, ConnectionError> {
        let expected = if unit == SECOND { "a number of seconds" } else { "a number of milliseconds" };
        let number = self.number(name, expected)?.and_then(|number| u32::try_from(number).ok());
        Ok(number.filter(|number| *number > 0).map(|number| unit * number))
    }

    fn wrong(&self, name: &'static str, expected: &str) -> ConnectionError {
        let expected = expected.to_owned();
        match self.raw(name).map(|value| (&value.origin, &value.text)) {
            // Only a variable's value certainly contains no part of another one.
            Some((Origin::Variable(variable), text)) if name != "password" => {
                ConnectionError::Variable { variable, value: text.clone(), expected }
            }
            _ => ConnectionError::Value { parameter: name, origin: self.origin(name), expected },
        }
    }

    fn refused(&self, name: &'static str, why: impl Into<String>) -> ConnectionError {
        ConnectionError::Refused { parameter: name, origin: self.origin(name), why: why.into() }
    }

    fn origin(&self, name: &str) -> String {
        self.raw(name).map(|value| value.origin.to_string()).unwrap_or_default()
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(place) => write!(f, "the connection string in {place}"),
            Self::Service(path) => write!(f, "the service file {}", path.display()),
            Self::Variable(variable) => write!(f, "the variable {variable}"),
        }
    }
}

/// Converts all values.
pub(super) fn settle(
    values: &Values,
    schema: String,
    set: impl Fn(&'static str) -> Option<String>,
) -> Result<DatabaseSettings, ConnectionError> {
    refuse_what_is_missing(values)?;
    let mut config = Config::new();
    add_servers(values, &mut config)?;
    let user = values.owned("user").or_else(|| set("USER")).or_else(|| set("LOGNAME"));
    let user = user.unwrap_or_else(|| "postgres".to_owned());
    config.dbname(values.text("dbname").unwrap_or(&user)).user(&user);
    if let Some(password) = values.text("password") {
        config.password(password);
    }
    let application = values.text("application_name").or_else(|| values.text("fallback_application_name"));
    config.application_name(application.unwrap_or("taskbay"));
    if let Some(options) = values.text("options") {
        config.options(options);
    }
    add_times(values, &mut config)?;
    let binding = values.read("channel_binding", "disable, prefer or require", |text| {
        Some(match text {
            "disable" => ChannelBinding::Disable,
            "prefer" => ChannelBinding::Prefer,
            "require" => ChannelBinding::Require,
            _ => return None,
        })
    })?;
    config.channel_binding(binding.unwrap_or(ChannelBinding::Prefer));
    let home = set("HOME").map(PathBuf::from);
    let tls = tls(values, &mut config, home.clone())?;
    let passfile = values.text("passfile").map(PathBuf::from).or_else(|| Some(home?.join(".pgpass")));
    let target_session = target_session(values)?;
    Ok(DatabaseSettings { tls, target_session, passfile, ..DatabaseSettings::new(config, schema) })
}

fn refuse_what_is_missing(values: &Values) -> Result<(), ConnectionError> {
    for parameter in parameters::PARAMETERS {
        if let Use::Only(accepted, why) = &parameter.use_of_it
            && let Some(text) = values.text(parameter.name)
            && !accepted.contains(&text.to_lowercase().as_str())
        {
            return Err(values.refused(parameter.name, *why));
        }
    }
    Ok(())
}

/// The hosts with their addresses and ports: lists with commas, in which an empty entry stands for the default.
fn add_servers(values: &Values, config: &mut Config) -> Result<(), ConnectionError> {
    let list = |name: &str| values.text(name).map(|text| text.split(',').map(str::trim).collect::<Vec<&str>>());
    let (hosts, addresses) = (list("host").unwrap_or_default(), list("hostaddr").unwrap_or_default());
    let ports = values.read("port", "a port from 1 to 65535", |text| {
        let port = |port: &str| if port.is_empty() { Some(5432) } else { port.parse().ok().filter(|port| *port > 0) };
        text.split(',').map(|text| port(text.trim())).collect::<Option<Vec<u16>>>()
    })?;
    let ports = ports.unwrap_or_else(|| vec![5432]);
    let count = hosts.len().max(addresses.len()).max(1);
    if ports.len() != 1 && ports.len() != count {
        return Err(values.wrong("port", &format!("one port, or one for each of the {count} hosts")));
    }
    if !addresses.is_empty() && !hosts.is_empty() && addresses.len() != hosts.len() {
        return Err(values.wrong("hostaddr", &format!("one address for each of the {} hosts", hosts.len())));
    }
    for port in &ports {
        config.port(*port);
    }
    for index in 0..count {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let host = hosts.get(index).copied().filter(|host| !host.is_empty());
        if let Some(text) = addresses.get(index) {
            let address: IpAddr =
                text.parse().map_err(|_| values.wrong("hostaddr", "an IP address, or one for each host"))?;
            // Without a name, the certificate is checked for the address.
            config.host(host.map_or_else(|| address.to_string(), str::to_owned)).hostaddr(address);
            continue;
        }
        match host {
            Some(host) if host.contains('@') && !host.starts_with('@') => {
                return Err(values.wrong("host", "the name of a host: there is an @ in it"));
            }
            // An abstract socket, without a file.
            Some(host) if host.starts_with('@') => config.host_path(Path::new(&host.replacen('@', "\0", 1))),
            Some(host) => config.host(host),
            None => config.host(default_host(port)),
        };
    }
    let balance = values.read("load_balance_hosts", "disable or random", |text| match text {
        "disable" => Some(LoadBalanceHosts::Disable),
        "random" => Some(LoadBalanceHosts::Random),
        _ => None,
    })?;
    config.load_balance_hosts(balance.unwrap_or(LoadBalanceHosts::Disable));
    Ok(())
}

fn add_times(values: &Values, config: &mut Config) -> Result<(), ConnectionError> {
    if let Some(seconds) = values.number("connect_timeout", "a number of seconds")? {
        let limit = u32::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(|seconds| SECOND * seconds);
        config.connect_timeout(limit.unwrap_or(FOR_EVER));
    }
    config.keepalives(values.number("keepalives", "0 or 1")? != Some(0));
    if let Some(idle) = values.span("keepalives_idle", SECOND)? {
        config.keepalives_idle(idle);
    }
    if let Some(interval) = values.span("keepalives_interval", SECOND)? {
        config.keepalives_interval(interval);
    }
    if let Some(count) = values.number("keepalives_count", "a number")?.and_then(|count| u32::try_from(count).ok()) {
        config.keepalives_retries(count);
    }
    if let Some(limit) = values.span("tcp_user_timeout", MILLISECOND)? {
        config.tcp_user_timeout(limit);
    }
    Ok(())
}

fn target_session(values: &Values) -> Result<TargetSession, ConnectionError> {
    let expected = "any, read-write, read-only, primary, standby or prefer-standby";
    let target = values.read("target_session_attrs", expected, |text| {
        Some(match text {
            "any" => TargetSession::Any,
            "read-write" => TargetSession::ReadWrite,
            "read-only" => TargetSession::ReadOnly,
            "primary" => TargetSession::Primary,
            "standby" => TargetSession::Standby,
            "prefer-standby" => TargetSession::PreferStandby,
            _ => return None,
        })
    })?;
    Ok(target.unwrap_or_default())
}

fn tls(values: &Values, config: &mut Config, home: Option<PathBuf>) -> Result<TlsSettings, ConnectionError> {
    let mode = values.read("sslmode", "disable, allow, prefer, require, verify-ca or verify-full", |text| {
        Some(match text {
            "disable" => TlsMode::Disable,
            "allow" => TlsMode::Allow,
            "prefer" => TlsMode::Prefer,
            "require" => TlsMode::Require,
            "verify-ca" => TlsMode::VerifyCa,
            "verify-full" => TlsMode::VerifyFull,
            _ => return None,
        })
    })?;
    let roots = match values.text("sslrootcert") {
        None => RootCertificates::Default,
        Some("system") => RootCertificates::System,
        Some(path) => RootCertificates::File(PathBuf::from(path)),
    };
    let mode = match (mode, &roots) {
        // Anyone can get a certificate from a public authority, so only the name distinguishes servers.
        (None | Some(TlsMode::VerifyFull), RootCertificates::System) => TlsMode::VerifyFull,
        (Some(weak), RootCertificates::System) => {
            let why = format!("sslmode={weak} is too weak for sslrootcert=system; use sslmode=verify-full");
            return Err(values.refused("sslmode", why));
        }
        (mode, _) => mode.unwrap_or_default(),
    };
    let negotiation = values.read("sslnegotiation", "postgres or direct", |text| match text {
        "postgres" => Some(SslNegotiation::Postgres),
        "direct" => Some(SslNegotiation::Direct),
        _ => None,
    })?;
    if negotiation == Some(SslNegotiation::Direct) {
        if matches!(mode, TlsMode::Disable | TlsMode::Allow | TlsMode::Prefer) {
            let why = format!("sslmode={mode} is too weak for it; use sslmode=require or stronger");
            return Err(values.refused("sslnegotiation", why));
        }
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    let send_certificate = values.read("sslcertmode", "disable or allow", |text| match text {
        "disable" => Some(false),
        "allow" => Some(true),
        _ => None,
    })?;
    let send_name = values.read("sslsni", "0 or 1", |text| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    })?;
    Ok(TlsSettings {
        mode: Some(mode),
        roots,
        certificate: values.text("sslcert").map(PathBuf::from),
        key: values.text("sslkey").map(PathBuf::from),
        send_certificate: send_certificate.unwrap_or(true),
        send_name: send_name.unwrap_or(true),
        versions: versions(values)?,
        home,
    })
}

fn versions(values: &Values) -> Result<TlsVersions, ConnectionError> {
    const VERSIONS: [&str; 4] = ["tlsv1", "tlsv1.1", "tlsv1.2", "tlsv1.3"];
    let place = |text: &str| VERSIONS.iter().position(|version| text.to_lowercase() == *version);
    let expected = "TLSv1.2 or TLSv1.3; older ones are not supported";
    let least = values.read("ssl_min_protocol_version", expected, place)?.unwrap_or(0);
    let most = values.read("ssl_max_protocol_version", expected, |text| place(text).filter(|place| *place >= 2))?;
    let most = most.unwrap_or(3);
    if least > most {
        return Err(values.wrong("ssl_max_protocol_version", "at least ssl_min_protocol_version"));
    }
    Ok(TlsVersions { tls12: least <= 2, tls13: most >= 3 })
}

/// The folder of a local server's socket, or otherwise this machine by name.
fn default_host(port: u16) -> &'static str {
    SOCKET_FOLDERS
        .into_iter()
        .find(|folder| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists())
        .unwrap_or("localhost")
}
