//! What runs the statements that add jobs: a session, or a connection of the caller's own.

use tokio_postgres::{
    GenericClient, Row,
    types::{ToSql, Type},
};

use super::{QueueError, Session, quote_identifier};

/// What runs the statements that add jobs.
pub(super) trait Statements: Sync {
    /// `what` completes the sentence "could not …".
    fn rows(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> impl Future<Output = Result<Vec<Row>, QueueError>> + Send;
}

impl Statements for Session {
    async fn rows(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, QueueError> {
        self.query(what, sql, parameters).await
    }
}

/// A connection or transaction of somebody else, in which nothing is prepared that would stay.
pub(super) struct Within<'a, C> {
    pub(super) client: &'a C,
    pub(super) schema: &'a str,
}

impl<C: GenericClient + Sync> Statements for Within<'_, C> {
    async fn rows(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, QueueError> {
        let sql = sql.replace("@schema@", &quote_identifier(self.schema));
        self.client.query_typed(&sql, parameters).await.map_err(|error| QueueError::statement(what, &error))
    }
}
