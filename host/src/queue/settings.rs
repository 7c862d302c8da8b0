//! Which database, and how to reach it.

use std::path::PathBuf;

use tokio_postgres::config::Config;

use super::tls::TlsSettings;

/// Which database, and which schema in it.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// How to connect, as far as the driver knows it.
    pub config: Config,
    /// Whether and how connections are encrypted.
    pub tls: TlsSettings,
    /// Which of several servers will do.
    pub target_session: TargetSession,
    /// Where the password is looked up if `config` has none, as `~/.pgpass`.
    pub passfile: Option<PathBuf>,
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
        Self {
            config,
            tls: TlsSettings::default(),
            target_session: TargetSession::default(),
            passfile: None,
            schema: schema.into(),
            max_pool_size: 10,
            prepared_statements: true,
        }
    }
}

/// Which of several servers will do, as libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetSession {
    /// The first that answers.
    #[default]
    Any,
    /// The first in which transactions may write.
    ReadWrite,
    /// The first in which they may not.
    ReadOnly,
    /// The first that is no standby.
    Primary,
    /// The first that is one.
    Standby,
    /// The first that is one; if there is none, the first that answers.
    PreferStandby,
}
