//! Connections to Postgres: a pool of sessions, and single connections for listening.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType};
use tokio_postgres::{
    NoTls, Row, Socket, Statement,
    config::{Config, Host, SslMode},
    tls::MakeTlsConnect,
    types::{ToSql, Type},
};

use super::error::{QueueError, reason_of};

/// How long a server may take to accept a connection, unless the settings say otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which database, and which schema in it.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// How to connect.
    pub config: Config,
    /// The schema; `graphile_worker` unless set.
    pub schema: String,
    /// The most connections for general use; listening and the hot path have their own.
    pub max_pool_size: usize,
    /// Whether statements are prepared once per connection. Poolers that hand out another connection for each transaction
    /// need this off.
    pub prepared_statements: bool,
}

impl DatabaseSettings {
    /// A connection, with the defaults for the rest.
    pub fn new(config: Config, schema: impl Into<String>) -> Self {
        Self { config, schema: schema.into(), max_pool_size: 10, prepared_statements: true }
    }
}

/// The way in which connections are secured. There is one so far; everything here goes by this name, so that another can
/// take its place.
type Tls = NoTls;

/// The half of a connection that has to be polled.
pub(super) type Connection = tokio_postgres::Connection<Socket, <Tls as MakeTlsConnect<Socket>>::Stream>;

/// The database: gives sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool,
    config: Config,
    server: String,
    schema: String,
    quoted_schema: String,
    /// Statements with the schema's name in them, by the text they have in our source.
    rendered: Mutex<HashMap<&'static str, Arc<str>>>,
    /// Until when it is not worth looking behind the queues at the front: see `get_jobs`.
    second_look: Mutex<Option<Instant>>,
}

impl Database {
    /// Settles how to connect, without connecting yet.
    pub fn new(settings: DatabaseSettings) -> Result<Self, QueueError> {
        let DatabaseSettings { config, schema, max_pool_size, prepared_statements: _ } = settings;
        let config = with_timeouts(config);
        let server = name_of(&config);
        if config.get_ssl_mode() == SslMode::Require {
            return Err(QueueError::TlsMissing { server });
        }
        let manager =
            Manager::from_config(config.clone(), NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let create_timeout = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT) + Duration::from_secs(5);
        let pool = Pool::builder(manager)
            .max_size(max_pool_size.max(1))
            .runtime(Runtime::Tokio1)
            .create_timeout(Some(create_timeout))
            .build()
            .map_err(|error| QueueError::Connect { server: server.clone(), reason: error.to_string(), code: None })?;
        let quoted_schema = quote_identifier(&schema);
        let inner = Inner {
            pool,
            config,
            server,
            schema,
            quoted_schema,
            rendered: Mutex::default(),
            second_look: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A connection of the pool, new if none is idle. Waits while all are in use.
    pub async fn session(&self) -> Result<Session, QueueError> {
        match self.inner.pool.get().await {
            Ok(client) => Ok(Session { client, database: self.clone() }),
            Err(PoolError::Backend(error)) => Err(self.connect_error(&error)),
            Err(PoolError::Timeout(TimeoutType::Create)) => Err(QueueError::Connect {
                server: self.inner.server.clone(),
                reason: "the server did not answer in time".to_owned(),
                code: None,
            }),
            Err(error) => {
                Err(QueueError::Connect { server: self.inner.server.clone(), reason: error.to_string(), code: None })
            }
        }
    }

    /// A connection outside of the pool, and the half of it that the caller has to poll.
    pub(super) async fn connect(&self) -> Result<(tokio_postgres::Client, Connection), QueueError> {
        let limit =
            self.inner.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT) + Duration::from_secs(5);
        let tls: Tls = NoTls;
        match tokio::time::timeout(limit, self.inner.config.connect(tls)).await {
            Ok(Ok(both)) => Ok(both),
            Ok(Err(error)) => Err(self.connect_error(&error)),
            Err(_) => Err(QueueError::Connect {
                server: self.inner.server.clone(),
                reason: "the server did not answer in time".to_owned(),
                code: None,
            }),
        }
    }

    /// The schema's name, as it was given.
    pub fn schema(&self) -> &str {
        &self.inner.schema
    }

    /// The database and its server, for people, without the password.
    pub fn name(&self) -> &str {
        &self.inner.server
    }

    /// Puts the schema's name into a statement.
    pub(crate) fn render(&self, sql: &'static str) -> Arc<str> {
        let mut rendered = self.inner.rendered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        rendered.entry(sql).or_insert_with(|| sql.replace("@schema@", &self.inner.quoted_schema).into()).clone()
    }

    pub(super) fn second_look(&self) -> &Mutex<Option<Instant>> {
        &self.inner.second_look
    }

    fn connect_error(&self, error: &tokio_postgres::Error) -> QueueError {
        QueueError::Connect { server: self.inner.server.clone(), reason: reason_of(error), code: error.code().cloned() }
    }
}

/// One connection with its prepared statements. The statements of `get_jobs.rs` and its neighbours are its methods.
///
/// When a method fails with [`QueueError::connection_lost`], the session is of no more use; the pool forgets it on drop.
#[derive(Debug)]
pub struct Session {
    client: deadpool_postgres::Client,
    database: Database,
}

impl Session {
    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The connection itself, for statements that are not run often enough to be worth preparing.
    pub(crate) fn client(&self) -> &tokio_postgres::Client {
        &self.client
    }

    /// As [`Session::client`], for transactions.
    pub(crate) fn client_mut(&mut self) -> &mut tokio_postgres::Client {
        &mut self.client
    }

    /// Runs a statement, prepared at its first use. `what` completes the sentence "could not …".
    pub(super) async fn query(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, QueueError> {
        let statement = self.prepare(what, sql, parameters.iter().map(|(_, kind)| kind.clone()).collect()).await?;
        let values: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|(value, _)| *value).collect();
        self.client.query(&statement, &values).await.map_err(|error| QueueError::statement(what, &error))
    }

    /// As [`Session::query`], for a statement that gives no rows: how many it touched.
    pub(super) async fn execute(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<u64, QueueError> {
        let statement = self.prepare(what, sql, parameters.iter().map(|(_, kind)| kind.clone()).collect()).await?;
        let values: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|(value, _)| *value).collect();
        self.client.execute(&statement, &values).await.map_err(|error| QueueError::statement(what, &error))
    }

    async fn prepare(&self, what: &'static str, sql: &'static str, kinds: Vec<Type>) -> Result<Statement, QueueError> {
        let text = self.database.render(sql);
        self.client.prepare_typed_cached(&text, &kinds).await.map_err(|error| QueueError::statement(what, &error))
    }
}

/// Writes a name as SQL wants it, whatever is in it.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A server that has vanished without a word is noticed within about a minute, unless the settings say otherwise.
fn with_timeouts(mut config: Config) -> Config {
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(Duration::from_secs(10));
        // The library's own value is two hours, and cannot be told from one that was asked for.
        if config.get_keepalives_idle() == Duration::from_secs(2 * 60 * 60) {
            config.keepalives_idle(Duration::from_secs(30));
        }
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(3);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(60));
    }
    if config.get_application_name().is_none() {
        config.application_name("taskbay");
    }
    config
}

fn name_of(config: &Config) -> String {
    let host = match (config.get_hosts().first(), config.get_hostaddrs().first()) {
        (Some(Host::Tcp(host)), _) => host.clone(),
        (Some(Host::Unix(folder)), _) => folder.display().to_string(),
        (None, Some(address)) => address.to_string(),
        (None, None) => "no host".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let database = config.get_dbname().or_else(|| config.get_user()).unwrap_or("postgres");
    format!("database {database} at {host}:{port}")
}
