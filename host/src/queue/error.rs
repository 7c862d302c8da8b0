//! What can go wrong between the host and Postgres, in words for people.

use std::error::Error;

use thiserror::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

use super::RowSecurityError;

/// A statement or a connection that failed. The message says what was tried and why it failed.
#[derive(Debug, Error)]
pub enum QueueError {
    #[error("could not connect to {server}: {reason}")]
    Connect { server: String, reason: String, code: Option<SqlState> },
    #[error("could not {what}: {reason}")]
    Statement {
        /// Completes the sentence "could not …".
        what: &'static str,
        reason: String,
        code: Option<SqlState>,
        /// The connection ended, so nothing is known of whether the statement took effect.
        lost: bool,
    },
    #[error(transparent)]
    RowSecurity(Box<RowSecurityError>),
    /// The database took the statement and refused what it does to some row: a constraint, a trigger, a value that does not
    /// convert. Without that row it may succeed.
    #[error("could not {what}: {reason}")]
    Refused {
        /// Completes the sentence "could not …".
        what: &'static str,
        reason: String,
        code: SqlState,
    },
    #[error("could not add a job: {reason}")]
    BadJob { reason: String },
}

impl From<RowSecurityError> for QueueError {
    fn from(error: RowSecurityError) -> Self {
        Self::RowSecurity(Box::new(error))
    }
}

impl QueueError {
    pub(crate) fn statement(what: &'static str, error: &tokio_postgres::Error) -> Self {
        let lost = match error.as_db_error() {
            Some(answer) => ends_connection(answer),
            None => error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>()),
        };
        if let Some(answer) = error.as_db_error().filter(|answer| !lost && refuses_a_row(answer)) {
            return Self::Refused { what, reason: reason_of(error), code: answer.code().clone() };
        }
        Self::Statement { what, reason: reason_of(error), code: error.code().cloned(), lost }
    }

    /// The message without what was tried, for those who say that themselves.
    pub fn reason(&self) -> String {
        match self {
            Self::Connect { .. } | Self::RowSecurity(_) => self.to_string(),
            Self::Statement { reason, .. } | Self::Refused { reason, .. } | Self::BadJob { reason } => reason.clone(),
        }
    }

    /// The SQLSTATE that the server answered with.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Connect { code, .. } | Self::Statement { code, .. } => code.as_ref(),
            Self::Refused { code, .. } => Some(code),
            Self::BadJob { .. } | Self::RowSecurity(_) => None,
        }
    }

    /// The database refused some row of the statement; see [`QueueError::Refused`].
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Another session may succeed; this one will not.
    pub fn connection_lost(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Statement { lost: true, .. })
    }

    /// The server has ended the statement before its end: a time limit, or somebody's command.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.code() == Some(&SqlState::QUERY_CANCELED)
    }

    /// The statement may have taken too long for somebody: it was cancelled, or a pooler has ended the connection.
    pub(crate) fn cuts_off(&self) -> bool {
        self.is_cancelled() || matches!(self, Self::Statement { lost: true, .. })
    }

    /// The server answers nobody, as far as can be seen.
    pub(crate) fn silence(what: &'static str) -> Self {
        let reason = "the server does not answer".to_owned();
        Self::Statement { what, reason, code: None, lost: true }
    }

    /// Not this request but the server as a whole is in trouble: it is away, full, starts, stops, or may not write.
    pub(crate) fn is_outage(&self) -> bool {
        let code = self.code().map_or("", SqlState::code);
        // By class: 53 resources.
        let refuses =
            code.starts_with("57P") || code.starts_with("53") || code == SqlState::READ_ONLY_SQL_TRANSACTION.code();
        refuses || (self.connection_lost() && self.is_temporary())
    }

    /// Whether the same request may succeed later: the server is away, starts or stops, or two transactions were in each
    /// other's way. Otherwise the request itself is at fault, and repeating it is of no use.
    pub fn is_temporary(&self) -> bool {
        let class = self.code().and_then(|code| code.code().get(..2));
        if let Self::Connect { .. } = self {
            // 28 and 3D: the server is there, and knows neither this role and password nor this database.
            return !matches!(class, Some("28" | "3D"));
        }
        if self.connection_lost() {
            return true;
        }
        self.code().is_some_and(|code| {
            // By class: 08 connection, 40 transaction rollback, 53 resources, 55 object not ready, 57 intervention,
            // 58 system error; and a read-only standby, which may be promoted.
            let class = code.code().get(..2).unwrap_or_default();
            matches!(class, "08" | "40" | "53" | "55" | "57" | "58") || *code == SqlState::READ_ONLY_SQL_TRANSACTION
        })
    }
}

/// Whether the cause is a row. It is not where the server, the transaction, the session or the schema is in a state in which no
/// row gets through; triggers may raise any other code, their own ones as well.
fn refuses_a_row(error: &DbError) -> bool {
    let code = error.code();
    match code.code().get(..2).unwrap_or_default() {
        // Temporary, as in `is_temporary`.
        "08" | "40" | "53" | "55" | "57" | "58" => false,
        // Not supported, cursors, transactions, prepared statements, roles, savepoints, databases, schemas, the server's files.
        "0A" | "24" | "25" | "26" | "28" | "2D" | "34" | "3B" | "3D" | "3F" | "F0" => false,
        // The statement does not fit the schema, or is not allowed. In a function, that is a trigger's.
        "42" => error.where_().is_some(),
        // Of internal errors, only those in which a row or its entry in an index is damaged.
        "XX" => *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED,
        _ => true,
    }
}

fn ends_connection(error: &DbError) -> bool {
    let code = error.code();
    *code == SqlState::ADMIN_SHUTDOWN
        || *code == SqlState::CRASH_SHUTDOWN
        || *code == SqlState::CANNOT_CONNECT_NOW
        // A pooler ends it, after a query that took too long for example, and calls that a mere error.
        || *code == SqlState::PROTOCOL_VIOLATION
        || matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

/// Everything that the server or the system said, in one line.
pub(crate) fn reason_of(error: &tokio_postgres::Error) -> String {
    if let Some(answer) = error.as_db_error() {
        let mut reason = match explain(answer) {
            Some(plain) => format!("{plain} ({}, SQLSTATE {})", answer.message(), answer.code().code()),
            None => format!("{} (SQLSTATE {})", answer.message(), answer.code().code()),
        };
        for more in [answer.detail(), answer.hint()].into_iter().flatten() {
            reason.push_str("; ");
            reason.push_str(more);
        }
        return reason.replace('\n', " ");
    }
    if let Some(reason) = super::tls::explain(error) {
        return reason;
    }
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        reason.push_str(": ");
        reason.push_str(&inner.to_string());
        cause = inner.source();
    }
    reason
}

/// The plain sentence behind the rules that a job can break.
fn explain(answer: &DbError) -> Option<&'static str> {
    match answer.constraint() {
        Some("jobs_key_check") => return Some("a job key has 1 to 512 characters"),
        Some("jobs_max_attempts_check") => return Some("a job has at least one attempt"),
        Some("tasks_identifier_check") => return Some("the name of a task has at most 128 characters"),
        Some("job_queues_queue_name_check") => return Some("the name of a queue has at most 128 characters"),
        _ => {}
    }
    match *answer.code() {
        SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_FUNCTION | SqlState::INVALID_SCHEMA_NAME => {
            Some("the schema is not installed here; `taskbay migrate` installs it")
        }
        SqlState::UNTRANSLATABLE_CHARACTER => {
            Some("the database's encoding has no such character; in a payload, JSON can have it as \\uXXXX")
        }
        SqlState::INSUFFICIENT_PRIVILEGE => Some(
            "this role lacks a privilege for that, or a row-level security policy forbids it; use the role that owns the \
                  schema's tables, or let that one grant it",
        ),
        SqlState::INVALID_SQL_STATEMENT_NAME | SqlState::DUPLICATE_PSTATEMENT => Some(
            "a pooler between here and the server mixes up prepared statements; use --no-prepared-statements, or \
             prepared_statements = false in the section [database]",
        ),
        _ => None,
    }
}
