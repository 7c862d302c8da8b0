//! Adds jobs in one transaction, and finds out whether it was committed even if the connection was lost at that moment.

use super::{Database, NewJob, QueueError, adding::add_jobs_unread};

const WHAT: &str = "add jobs";

/// Jobs that are added once and together, however often that is tried.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    new: &'a [NewJob],
    /// The transaction whose commit was asked for without an answer.
    in_doubt: Option<i64>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(new: &'a [NewJob]) -> Self {
        Self { new, in_doubt: None }
    }

    /// Whether nothing is known of what the last try did. The next one finds out first.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt.is_some()
    }

    /// Tries it. After a temporary error it may be tried again.
    pub(crate) async fn add(&mut self, database: &Database) -> Result<(), QueueError> {
        let failed = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        let mut session = database.session().await?;
        if let Some(transaction) = self.in_doubt {
            if is_committed(session.client(), transaction).await? {
                self.in_doubt = None;
                return Ok(());
            }
            self.in_doubt = None;
        }
        let transaction = session.transaction().await.map_err(failed)?;
        add_jobs_unread(&transaction, database.schema(), self.new).await?;
        let id = transaction.query_typed("select pg_catalog.txid_current()", &[]).await.map_err(failed)?;
        let id = id.first().map(|row| row.try_get::<_, i64>(0)).transpose().map_err(failed)?;
        self.in_doubt = id;
        match transaction.commit().await.map_err(failed) {
            // Only then is the answer missing; any other error is one.
            Err(error) if error.connection_lost() => Err(error),
            answered => {
                self.in_doubt = None;
                answered
            }
        }
    }
}

async fn is_committed(client: &tokio_postgres::Client, transaction: i64) -> Result<bool, QueueError> {
    const WHAT: &str = "find out whether jobs were added";
    let unknown =
        |reason: &str, lost| QueueError::Statement { what: WHAT, reason: reason.to_owned(), code: None, lost };
    let failed = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
    let sql = format!("select pg_catalog.txid_status({transaction})");
    let rows = client.query_typed(&sql, &[]).await.map_err(failed)?;
    match rows.first().and_then(|row| row.get::<_, Option<&str>>(0)) {
        Some("committed") => Ok(true),
        Some("aborted") => Ok(false),
        // The server has not noticed yet that the connection is gone.
        Some(_) => Err(unknown("their transaction has not ended yet", true)),
        None => Err(unknown("their transaction is too long ago for the server to know", false)),
    }
}
