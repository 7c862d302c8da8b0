//! The way to one of the servers: each host and address in turn, with or without TLS, until one will do.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use rand::seq::SliceRandom;
use tokio_postgres::{
    Client, SimpleQueryMessage, Socket,
    config::{ChannelBinding, Config, Host, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs},
    error::SqlState,
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    error::{QueueError, reason_of},
    health::Health,
    passfile::{self, Found},
    servers::{Server, name_of, servers},
    settings::{DatabaseSettings, TargetSession},
    tls::{TlsMode, TlsSettings},
};
use crate::blocking::off_the_runtime;

/// How long a server may take to accept a connection, unless the settings say otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The half of a connection that has to be polled.
pub(super) type Connection = tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Connects. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    plan: Arc<Plan>,
    health: Arc<Health>,
}

#[derive(Debug)]
struct Plan {
    /// Without hosts: each try adds its own.
    config: Config,
    servers: Vec<Server>,
    name: String,
    mode: TlsMode,
    tls: TlsSettings,
    target: TargetSession,
    passfile: Option<PathBuf>,
    timeout: Duration,
    shuffle: bool,
}

/// Why one try failed.
struct Failure {
    /// The server and, where it has several, its address.
    place: String,
    reason: String,
    code: Option<SqlState>,
}

type Connected = (Client, Connection);

impl Connector {
    pub(super) fn new(settings: &DatabaseSettings) -> Result<Self, QueueError> {
        let config = &settings.config;
        let servers = servers(config);
        let name = name_of(config, servers.as_deref().unwrap_or_default());
        let servers = servers.map_err(|reason| QueueError::Connect { server: name.clone(), reason, code: None })?;
        let mode = settings.tls.mode.unwrap_or(match config.get_ssl_mode() {
            SslMode::Disable => TlsMode::Disable,
            SslMode::Require => TlsMode::Require,
            _ => TlsMode::Prefer,
        });
        let target = match (settings.target_session, config.get_target_session_attrs()) {
            (TargetSession::Any, TargetSessionAttrs::ReadWrite) => TargetSession::ReadWrite,
            (TargetSession::Any, TargetSessionAttrs::ReadOnly) => TargetSession::ReadOnly,
            (target, _) => target,
        };
        let plan = Plan {
            config: without_hosts(config),
            servers,
            name,
            mode,
            tls: settings.tls.clone(),
            target,
            passfile: settings.passfile.clone(),
            timeout: config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT),
            shuffle: config.get_load_balance_hosts() == LoadBalanceHosts::Random,
        };
        Ok(Self { plan: Arc::new(plan), health: Arc::default() })
    }

    /// The database and its servers, for people, without the password.
    pub(super) fn name(&self) -> &str {
        &self.plan.name
    }

    /// What its connections have shown of the server.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// A connection to the first server that will do. The second half has to be polled.
    pub(super) async fn connect(&self) -> Result<Connected, QueueError> {
        let plan = &*self.plan;
        let failures = match plan.target {
            TargetSession::PreferStandby => match plan.try_all(TargetSession::Standby).await {
                Ok(connected) => return Ok(connected),
                // What kept it from the standbys is not interesting if nothing else is reached either.
                Err(_) => plan.try_all(TargetSession::Any).await,
            },
            target => plan.try_all(target).await,
        };
        failures.map_err(|failures| plan.error(&failures))
    }
}

impl Plan {
    async fn try_all(&self, target: TargetSession) -> Result<Connected, Vec<Failure>> {
        let mut servers: Vec<&Server> = self.servers.iter().collect();
        if self.shuffle {
            servers.shuffle(&mut rand::rng());
        }
        let mut failures = Vec::new();
        for server in servers {
            let addresses = match self.addresses(server).await {
                Ok(addresses) => addresses,
                Err(reason) => {
                    failures.push(Failure { place: server.to_string(), reason, code: None });
                    continue;
                }
            };
            let several = addresses.len() > 1;
            for address in addresses {
                let (reason, code) = match self.try_one(server, address, target).await {
                    Ok(connected) => return Ok(connected),
                    Err(failed) => failed,
                };
                let place = match address.filter(|_| several) {
                    Some(address) => format!("{server} ({address})"),
                    None => server.to_string(),
                };
                let is_final = code.as_ref().is_some_and(refuses_request);
                failures.push(Failure { place, reason, code });
                if is_final {
                    return Err(failures);
                }
            }
        }
        Err(failures)
    }

    /// All addresses of a server; sockets have none.
    async fn addresses(&self, server: &Server) -> Result<Vec<Option<IpAddr>>, String> {
        match (&server.host, server.address) {
            (Host::Unix(_), None) => Ok(vec![None]),
            (_, Some(address)) => Ok(vec![Some(address)]),
            (Host::Tcp(name), None) => {
                let found = tokio::time::timeout(self.timeout, tokio::net::lookup_host((name.as_str(), server.port)));
                let mut addresses: Vec<Option<IpAddr>> = match found.await {
                    Ok(Ok(found)) => found.map(|address| Some(address.ip())).collect(),
                    Ok(Err(error)) => return Err(format!("its address is not known: {error}")),
                    Err(_) => return Err("its address was not found in time".to_owned()),
                };
                if self.shuffle {
                    addresses.shuffle(&mut rand::rng());
                }
                if addresses.is_empty() { Err("it has no address".to_owned()) } else { Ok(addresses) }
            }
        }
    }

    /// Tries one address in the ways that the mode allows, one after the other.
    async fn try_one(
        &self,
        server: &Server,
        address: Option<IpAddr>,
        target: TargetSession,
    ) -> Result<Connected, (String, Option<SqlState>)> {
        let mut config = self.config.clone();
        server.add_to(&mut config, address);
        let unusable = self.find_password(server, &mut config).await;
        let ways = match (&server.host, self.mode) {
            // As in libpq, the mode is not for sockets: nobody is in between.
            (Host::Unix(_), _) | (_, TlsMode::Disable) => [Some(TlsMode::Disable), None],
            (_, TlsMode::Allow) => [Some(TlsMode::Disable), Some(TlsMode::Require)],
            (_, TlsMode::Prefer) => [Some(TlsMode::Prefer), Some(TlsMode::Disable)],
            (_, always) => [Some(always), None],
        };
        let mut reasons: Vec<String> = Vec::new();
        let mut last = None;
        for way in ways.into_iter().flatten() {
            let failed = match tokio::time::timeout(self.timeout, self.try_way(&mut config, way, target)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(failed)) => failed,
                Err(_) => Rejected { worth_other_way: false, reason: "it did not answer in time".into(), code: None },
            };
            if !reasons.contains(&failed.reason) {
                reasons.push(failed.reason);
            }
            last = failed.code;
            if !failed.worth_other_way {
                break;
            }
        }
        let mut reason = match &reasons[..] {
            [first, second] if self.mode == TlsMode::Prefer => format!("with TLS: {first}; without: {second}"),
            [first, second] => format!("without TLS: {first}; with it: {second}"),
            reasons => reasons.concat(),
        };
        if let Some(unusable) = unusable {
            reason = format!("{reason}; {unusable}");
        }
        Err((reason, last))
    }

    async fn try_way(&self, config: &mut Config, way: TlsMode, target: TargetSession) -> Result<Connected, Rejected> {
        config.ssl_mode(match way {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer | TlsMode::Allow => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        let direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
        // The files are those of the mode that was asked for. Where there will be no TLS, they do not matter.
        let connector = if way == TlsMode::Disable {
            TlsSettings::nothing()
        } else {
            let tls = self.tls.clone();
            off_the_runtime(move || tls.connector(way, direct)).await
        };
        let connector =
            connector.map_err(|error| Rejected { worth_other_way: true, reason: error.to_string(), code: None })?;
        let (client, mut connection) =
            config.connect(connector).await.map_err(|error| Rejected::new(&error, self.mode, direct))?;
        if target != TargetSession::Any {
            check_session(&client, &mut connection, target).await?;
        }
        if connection.parameter("server_encoding") == Some("SQL_ASCII") {
            take_any_bytes(&client, &mut connection).await?;
        }
        Ok((client, connection))
    }

    /// Adds the password from the file if there is no other; says so if the file cannot be used.
    async fn find_password(&self, server: &Server, config: &mut Config) -> Option<String> {
        let (None, Some(file)) = (config.get_password(), &self.passfile) else { return None };
        let user = config.get_user()?.to_owned();
        let database = config.get_dbname().unwrap_or(&user).to_owned();
        let (file, name, port) = (file.clone(), server.name_in_passfile(), server.port);
        match off_the_runtime(move || passfile::find(&file, &name, port, &database, &user)).await {
            Found::Password(password) => {
                config.password(password);
                None
            }
            Found::Nothing => None,
            Found::Unusable(reason) => Some(reason),
        }
    }

    fn error(&self, failures: &[Failure]) -> QueueError {
        let reason = match failures {
            [only] => only.reason.clone(),
            all => {
                let each: Vec<String> =
                    all.iter().map(|failure| format!("{}: {}", failure.place, failure.reason)).collect();
                each.join("; ")
            }
        };
        let code = failures.last().and_then(|failure| failure.code.clone());
        QueueError::Connect { server: self.name.clone(), reason, code }
    }
}

/// What came of one way to connect.
struct Rejected {
    /// Whether the other way, with or without TLS, may lead further.
    worth_other_way: bool,
    reason: String,
    code: Option<SqlState>,
}

impl Rejected {
    fn new(error: &tokio_postgres::Error, mode: TlsMode, direct: bool) -> Self {
        // The driver has no other way to tell where it failed.
        let in_handshake = error.to_string().starts_with("error performing TLS handshake");
        // Access rules may be different with and without TLS. A wrong password stays wrong, and is not sent in the clear.
        let refused = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        let reason = match cause.as_str() {
            "server does not support TLS" => {
                format!("the server does not offer TLS, which sslmode={mode} insists on")
            }
            "password missing" => "the server asks for a password, and there is none".to_owned(),
            _ if in_handshake && direct => {
                format!("{}; sslnegotiation=direct needs PostgreSQL 17 or newer", reason_of(error))
            }
            _ => reason_of(error),
        };
        Self { worth_other_way: in_handshake || refused, reason, code: error.code().cloned() }
    }
}

/// Everything but the hosts. A server that has vanished without a word is noticed within about a minute, unless the
/// settings say otherwise.
fn without_hosts(from: &Config) -> Config {
    let mut config = Config::new();
    config.application_name(from.get_application_name().unwrap_or("taskbay"));
    if let Some(user) = from.get_user() {
        config.user(user);
    }
    if let Some(password) = from.get_password() {
        config.password(password);
    }
    if let Some(database) = from.get_dbname() {
        config.dbname(database);
    }
    if let Some(options) = from.get_options() {
        config.options(options);
    }
    config.ssl_negotiation(from.get_ssl_negotiation()).channel_binding(match from.get_channel_binding() {
        ChannelBinding::Disable => ChannelBinding::Disable,
        ChannelBinding::Require => ChannelBinding::Require,
        _ => ChannelBinding::Prefer,
    });
    config.keepalives(from.get_keepalives());
    // The driver's own value is two hours, and cannot be told from one that was asked for.
    let driver_default = Duration::from_secs(2 * 60 * 60);
    let idle = from.get_keepalives_idle();
    config.keepalives_idle(if idle == driver_default { Duration::from_secs(30) } else { idle });
    config.keepalives_interval(from.get_keepalives_interval().unwrap_or(Duration::from_secs(10)));
    config.keepalives_retries(from.get_keepalives_retries().unwrap_or(3));
    config.tcp_user_timeout(from.get_tcp_user_timeout().copied().unwrap_or(Duration::from_secs(60)));
    config
}

/// A server that knows the user or the database and says no has spoken for its peers; one that starts, stops or is full
/// has not.
fn refuses_request(code: &SqlState) -> bool {
    // By class: 28 authorization, 3D no such database.
    matches!(code.code().get(..2), Some("28" | "3D"))
}

/// A database of this encoding takes any bytes for a text. It is to hand them out as they are: as UTF-8, which the driver asks for,
/// one text that is none would make whole statements fail. The connection has to be polled for the answer to come.
async fn take_any_bytes(client: &Client, connection: &mut Connection) -> Result<(), Rejected> {
    let rejected = |reason: String| Rejected { worth_other_way: false, reason, code: None };
    tokio::select! {
        answer = client.batch_execute("set client_encoding = 'SQL_ASCII'") => answer.map_err(|error| rejected(reason_of(&error))),
        _ = connection => Err(rejected("the server closed the connection".to_owned())),
    }
}

/// Asks the server what it is. The connection has to be polled for the answer to come.
async fn check_session(client: &Client, connection: &mut Connection, target: TargetSession) -> Result<(), Rejected> {
    const SQL: &str = "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')";
    let rejected = |reason: String| Rejected { worth_other_way: false, reason, code: None };
    let answer = tokio::select! {
        answer = client.simple_query(SQL) => answer.map_err(|error| rejected(reason_of(&error)))?,
        _ = connection => return Err(rejected("the server closed the connection".to_owned())),
    };
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0) == Some("t"), row.get(1) == Some("on"))),
        _ => None,
    });
    let Some((is_standby, is_read_only)) = row else {
        return Err(rejected("the server did not say whether it is a standby".to_owned()));
    };
    let wrong = match target {
        TargetSession::ReadWrite if is_read_only => "its sessions are read-only",
        TargetSession::ReadOnly if !is_read_only => "its sessions are not read-only",
        TargetSession::Primary if is_standby => "it is a standby",
        TargetSession::Standby if !is_standby => "it is no standby",
        _ => return Ok(()),
    };
    Err(rejected(format!("{wrong}, which target_session_attrs does not want")))
}
