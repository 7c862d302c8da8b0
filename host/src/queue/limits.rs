//! The time limits of sessions.
//!
//! A role, a database or a server can have limits that were set with other programs in mind: `alter role … set statement_timeout`. A
//! host whose claims are cancelled works nothing, and one whose results are cancelled works everything twice. So its sessions have
//! none, except those that the tasks of a program use for statements of their own.
//!
//! Behind a pooler a session belongs to others as well. There each statement is a transaction that lifts the limits for itself.

use tokio_postgres::Transaction;

use super::{Database, QueueError, Session};

const WHAT: &str = "lift the time limits of a session";

/// Servers before 14 have no `idle_session_timeout`, and those before 17 no `transaction_timeout`.
macro_rules! lift {
    ($local:literal) => {
        concat!(
            "select pg_catalog.set_config(name, '0', ",
            $local,
            ")
             from (values ('statement_timeout'), ('lock_timeout'), ('idle_in_transaction_session_timeout'),
               ('idle_session_timeout'), ('transaction_timeout')) as setting (name)
             where pg_catalog.current_setting(name, true) is not null"
        )
    };
}

/// All settings as they were when the connection was made, which had SQL_ASCII for its encoding in a database of that one.
macro_rules! reset {
    () => {
        "reset all;
         select pg_catalog.set_config('client_encoding', 'SQL_ASCII', false)
         where pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'"
    };
}

/// For the rest of the session.
const LIFT: &str = lift!("false");
/// The same, for one that a task has used before.
const START_OVER: &str = concat!(reset!(), "; ", lift!("false"));
/// For the rest of the transaction.
const LIFT_HERE: &str = lift!("true");
const BEGIN: &str = concat!("begin; ", lift!("true"));

/// For a session that may be a pooler's: no other limit is only for us.
pub(super) const STAY: &str = "
select pg_catalog.set_config('idle_session_timeout', '0', false)
where pg_catalog.current_setting('idle_session_timeout', true) is not null";

/// The same transaction as [`READ_COMMITTED`], without limits.
const READ_COMMITTED_WITHOUT_LIMITS: &str = concat!("begin isolation level read committed; ", lift!("true"));
/// Whatever the database has for a default: the locks are all the isolation that is needed, and stricter levels would have
/// transactions fail.
const READ_COMMITTED: &str = "begin isolation level read committed";

/// A transaction that only reads, and along an index: it is to end where it has enough, not to begin with sorting all there is.
/// Statistics may be of an empty table.
macro_rules! in_order {
    () => {
        "begin isolation level read committed read only;
         set local enable_sort = off; set local enable_seqscan = off; set local enable_bitmapscan = off;
         set local plan_cache_mode = force_custom_plan"
    };
}
const IN_ORDER: &str = in_order!();
const IN_ORDER_WITHOUT_LIMITS: &str = concat!(in_order!(), "; ", lift!("true"));

impl Database {
    /// A connection of the pool, new if none is idle. Waits while all are in use. No time limit holds for its statements.
    pub async fn session(&self) -> Result<Session, QueueError> {
        let mut session = self.any_session().await?;
        if session.prepares_statements() && !session.client.lifted {
            session.command(WHAT, START_OVER).await?;
            session.client.lifted = true;
        }
        Ok(session)
    }

    /// The statement that lifts the limits of a session outside of the pool.
    pub(super) fn limits(&self) -> &'static str {
        if self.prepares_statements() { LIFT } else { STAY }
    }

    /// A connection of the same pool, with the limits and all other settings that the server gives this role.
    pub(crate) async fn session_of_task(&self) -> Result<Session, QueueError> {
        let mut session = self.any_session().await?;
        if session.client.lifted {
            session.command("reset a session", reset!()).await?;
            session.client.lifted = false;
        }
        Ok(session)
    }
}

impl Session {
    /// Begins a transaction of several statements.
    pub(crate) async fn transaction(&mut self) -> Result<Transaction<'_>, tokio_postgres::Error> {
        let shared = !self.prepares_statements();
        let transaction = self.client_mut().transaction().await?;
        if shared {
            transaction.batch_execute(LIFT_HERE).await?;
        }
        Ok(transaction)
    }

    /// The command that begins a transaction of the express lane.
    pub(super) fn begin_read_committed(&self) -> &'static str {
        if self.prepares_statements() { READ_COMMITTED } else { READ_COMMITTED_WITHOUT_LIMITS }
    }

    /// The command that begins a transaction that reads along an index.
    pub(super) fn begin_in_order(&self) -> &'static str {
        if self.prepares_statements() { IN_ORDER } else { IN_ORDER_WITHOUT_LIMITS }
    }

    /// Asks one statement, which is sent at the first poll, as a transaction of its own.
    pub(super) async fn ask_alone<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, tokio_postgres::Error> {
        if self.prepares_statements() {
            return asked.await;
        }
        // On one trip. After an error of the statement, the last command takes the transaction back.
        let (begun, answer, ended) =
            tokio::join!(biased; self.client().batch_execute(BEGIN), asked, self.client().batch_execute("commit"));
        begun?;
        let answer = answer?;
        ended.map(|()| answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_lifted_where_the_server_knows_it() {
        for statement in [LIFT, START_OVER, LIFT_HERE, BEGIN, READ_COMMITTED_WITHOUT_LIMITS, IN_ORDER_WITHOUT_LIMITS] {
            for limit in ["statement", "lock", "idle_in_transaction_session", "idle_session", "transaction"] {
                assert!(statement.contains(&format!("('{limit}_timeout')")), "{limit}: {statement}");
            }
            assert!(statement.ends_with("where pg_catalog.current_setting(name, true) is not null"), "{statement}");
        }
    }
}
