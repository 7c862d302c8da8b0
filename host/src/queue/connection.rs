//! Connections to Postgres: a pool of sessions, and single connections for listening.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI32, Ordering},
    },
};

use deadpool::managed::{self, Pool, PoolError, RecycleError};
use deadpool_postgres::ClientWrapper;
use tokio_postgres::{
    Row, Statement,
    types::{ToSql, Type},
};

use super::{
    claim::Memory,
    connect::{Connection, Connector},
    error::QueueError,
    health::Health,
    placeholders::{fill_in, quote_identifier},
    pooled::Pooled,
    retry::Retries,
    settings::DatabaseSettings,
};

/// The database: gives sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Pool<Connector>,
    /// For connections outside of the pool.
    connector: Connector,
    prepared_statements: bool,
    schema: String,
    quoted_schema: String,
    /// Statements with the schema's name in them, by the text they have in our source.
    rendered: Mutex<HashMap<&'static str, Arc<str>>>,
    /// Where claims begin.
    memory: Memory,
}

impl Database {
    /// Settles how to connect, without connecting yet.
    pub fn new(settings: DatabaseSettings) -> Result<Self, QueueError> {
        let connector = Connector::new(&settings)?;
        // Without a time limit of the pool's own: the connector has one for each of its tries.
        let pool =
            Pool::builder(connector.clone()).max_size(settings.max_pool_size.max(1)).build().map_err(|error| {
                QueueError::Connect { server: connector.name().to_owned(), reason: error.to_string(), code: None }
            })?;
        let inner = Inner {
            pool,
            connector,
            prepared_statements: settings.prepared_statements,
            quoted_schema: quote_identifier(&settings.schema),
            schema: settings.schema,
            rendered: Mutex::default(),
            memory: Memory::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A connection of the pool with whatever settings it has: see [`Database::session`].
    pub(super) async fn any_session(&self) -> Result<Session, QueueError> {
        match self.inner.pool.get().await {
            Ok(client) => {
                // A connection that has been used before has plans that nobody knows the age of.
                let planned_pages = if managed::Object::metrics(&client).recycle_count == 0 { UNPLANNED } else { 0 };
                Ok(Session { client, database: self.clone(), planned_pages: AtomicI32::new(planned_pages) })
            }
            Err(PoolError::Backend(error)) => Err(error),
            Err(error) => {
                Err(QueueError::Connect { server: self.name().to_owned(), reason: error.to_string(), code: None })
            }
        }
    }

    /// A connection outside of the pool, and the half of it that the caller has to poll.
    pub(super) async fn connect(&self) -> Result<(tokio_postgres::Client, Connection), QueueError> {
        Box::pin(self.inner.connector.connect()).await
    }

    /// The schema's name, as it was given.
    pub fn schema(&self) -> &str {
        &self.inner.schema
    }

    /// The database and its server or servers, for people, without the password.
    pub fn name(&self) -> &str {
        self.inner.connector.name()
    }

    /// Fills in the placeholders of a statement, see [`fill_in`].
    pub(crate) fn render(&self, sql: &'static str) -> Arc<str> {
        let schema = &self.inner.quoted_schema;
        let mut rendered = self.inner.rendered.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        rendered.entry(sql).or_insert_with(|| fill_in(sql, schema).into()).clone()
    }

    /// Without, a session may be a pooler's.
    pub(super) fn prepares_statements(&self) -> bool {
        self.inner.prepared_statements
    }

    /// What all that use this database learn from each other.
    pub(crate) fn health(&self) -> &Health {
        self.inner.connector.health()
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.inner.memory
    }
}

/// Makes the pool's connections. Each has a task that runs it, which ends with the connection.
impl managed::Manager for Connector {
    type Type = Pooled;
    type Error = QueueError;

    async fn create(&self) -> Result<Pooled, QueueError> {
        // In a box, because it is rare and large, and a part of whoever asks for a session.
        let (client, connection) = Box::pin(self.connect()).await?;
        let running = tokio::spawn(async move {
            // How it ended is told to whoever uses it next.
            let _ = connection.await;
        });
        Ok(Pooled::new(ClientWrapper::new(client, running)))
    }

    async fn recycle(&self, client: &mut Pooled, of: &managed::Metrics) -> managed::RecycleResult<QueueError> {
        let usable = !client.is_closed() && self.health().trusts(of.created);
        if usable { Ok(()) } else { Err(RecycleError::message("the connection was lost")) }
    }
}

/// The server notices within about 14 seconds that a machine has vanished.
pub(super) const NOTICE_SOON: &str = "
set tcp_keepalives_idle = 5;
set tcp_keepalives_interval = 3;
set tcp_keepalives_count = 3;
set tcp_user_timeout = 14000";

/// The server has no plan on this connection.
const UNPLANNED: i32 = -1;

/// One connection with its prepared statements. The statements of `get_jobs.rs` and its neighbours are its methods.
///
/// When a method fails with [`QueueError::connection_lost`], the session is of no more use; the pool forgets it on drop.
#[derive(Debug)]
pub struct Session {
    pub(super) client: managed::Object<Connector>,
    database: Database,
    /// How many pages the table of jobs had when the server began to plan, or [`UNPLANNED`].
    planned_pages: AtomicI32,
}

impl Session {
    /// Whether the connection has ended, or was made before the server was found not to answer: then it may lead nowhere.
    pub fn is_lost(&self) -> bool {
        let made = managed::Object::metrics(&self.client).created;
        self.client.is_closed() || !self.health().trusts(made)
    }

    pub(super) fn prepares_statements(&self) -> bool {
        self.database.prepares_statements()
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The connection itself, for statements that are not run often enough to be worth preparing.
    pub(crate) fn client(&self) -> &tokio_postgres::Client {
        &self.client
    }

    /// The same, for what needs it alone.
    pub(crate) fn client_mut(&mut self) -> &mut tokio_postgres::Client {
        &mut self.client
    }

    /// Runs a statement that is a transaction of its own. `what` completes the sentence "could not …". If the server undoes
    /// it because another one was in its way, it is run again a few times.
    pub(super) async fn query(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, QueueError> {
        let text = self.database.render(sql);
        let mut retries = Retries::default();
        loop {
            let asked = self.ask_alone(self.query_once(&text, parameters));
            match self.health().answer(what, asked).await {
                Ok(rows) => return Ok(rows),
                Err(error) => retries.wait(error).await?,
            }
        }
    }

    /// As [`Session::query`], for a statement that gives no rows: how many it touched.
    pub(super) async fn execute(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<u64, QueueError> {
        let text = self.database.render(sql);
        let mut retries = Retries::default();
        loop {
            let asked = self.ask_alone(self.execute_once(&text, parameters));
            match self.health().answer(what, asked).await {
                Ok(touched) => return Ok(touched),
                Err(error) => retries.wait(error).await?,
            }
        }
    }

    /// Runs a statement once: within a transaction, which is of no more use after an error, or because what it says is only true for
    /// a moment.
    pub(super) async fn query_as_part(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, QueueError> {
        let text = self.database.render(sql);
        self.health().answer(what, self.query_once(&text, parameters)).await
    }

    /// Runs a statement within a transaction. If it is refused, it has not happened, and the transaction goes on.
    pub(super) async fn try_as_part(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, QueueError> {
        self.command(what, "savepoint part").await?;
        let result = self.query_as_part(what, sql, parameters).await;
        match &result {
            Ok(_) => self.command(what, "release savepoint part").await?,
            Err(error) if error.is_refusal() => {
                self.command(what, "rollback to savepoint part; release savepoint part").await?;
            }
            Err(_) => {}
        }
        result
    }

    /// Runs a command that begins or ends a transaction.
    pub(super) async fn command(&self, what: &'static str, command: &'static str) -> Result<(), QueueError> {
        self.health().answer(what, self.client.batch_execute(command)).await
    }

    /// Fits the connection out for working jobs.
    ///
    /// The server is to plan each prepared statement once, for any parameters. By itself it would plan each of the first five
    /// executions for the very parameters of that one, and find it cheaper to read all of 100,000 jobs than to look for the 1,000
    /// that are done. And it is to notice soon when this machine has vanished: a transaction of the express lane locks rows until
    /// then. Behind a pooler, both would be for others as well.
    pub(crate) async fn fit_out(&self) -> Result<(), QueueError> {
        const WHAT: &str = "prepare to work jobs";
        if !self.prepares_statements() {
            return Ok(());
        }
        let plans = match self.planned_pages.swap(UNPLANNED, Ordering::Relaxed) {
            UNPLANNED => self.command(WHAT, "set plan_cache_mode = force_generic_plan"),
            _ => self.command(WHAT, "set plan_cache_mode = force_generic_plan; discard plans"),
        };
        let (plans, keepalive) = tokio::join!(biased; plans, self.command(WHAT, NOTICE_SOON));
        plans.and(keepalive)
    }

    /// Prepares a statement for later. What was prepared is sent at the first poll of the method that runs it.
    pub(super) async fn prepare_ahead(
        &self,
        what: &'static str,
        sql: &'static str,
        kinds: &[Type],
    ) -> Result<(), QueueError> {
        if !self.prepares_statements() {
            return Ok(());
        }
        let text = self.database.render(sql);
        self.health().answer(what, self.client.prepare_typed_cached(&text, kinds)).await.map(drop)
    }

    /// Ends the connection, and with it a transaction that may be open.
    pub(crate) fn discard(self) {
        drop(managed::Object::take(self.client));
    }

    fn health(&self) -> &Health {
        self.database.health()
    }

    /// Has the server plan its statements anew if the table of jobs, which has so many pages now, has grown out of their plans.
    ///
    /// A plan that was made while the table was almost empty reads all of it, which is the fastest way then. Postgres keeps it
    /// until the table has been analyzed, up to a minute later.
    pub(super) async fn plan_for(&self, pages: i32) {
        let planned = self.planned_pages.load(Ordering::Relaxed);
        if planned == UNPLANNED {
            self.planned_pages.store(pages, Ordering::Relaxed);
        } else if pages < planned {
            // It was emptied, and its statements may have been planned anew since.
            self.planned_pages.store(pages, Ordering::Relaxed);
        } else if pages > planned.saturating_mul(4).saturating_add(50) {
            self.planned_pages.store(pages, Ordering::Relaxed);
            // If that fails, so does the next statement.
            let _ = self.command("have statements planned anew", "discard plans").await;
        }
    }

    /// Prepared at its first use on this connection; or without a name and in one go, if that is not wanted.
    async fn query_once(
        &self,
        text: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !self.prepares_statements() {
            return self.client.query_typed(text, parameters).await;
        }
        let statement = self.prepare(text, parameters).await?;
        let values: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|(value, _)| *value).collect();
        self.client.query(&statement, &values).await
    }

    async fn execute_once(
        &self,
        text: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<u64, tokio_postgres::Error> {
        if !self.prepares_statements() {
            return self.client.execute_typed(text, parameters).await;
        }
        let statement = self.prepare(text, parameters).await?;
        let values: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|(value, _)| *value).collect();
        self.client.execute(&statement, &values).await
    }

    async fn prepare(
        &self,
        text: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Statement, tokio_postgres::Error> {
        let kinds: Vec<Type> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
        self.client.prepare_typed_cached(text, &kinds).await
    }
}
