//! What the time is by the database's clock.

use std::time::SystemTime;

use super::{QueueError, Session};

impl Session {
    pub(crate) async fn now(&self) -> Result<SystemTime, QueueError> {
        const WHAT: &str = "ask the database what the time is";
        let rows = self.query(WHAT, "select now()", &[]).await?;
        let Some(row) = rows.first() else { return Err(QueueError::silence(WHAT)) };
        row.try_get(0).map_err(|error| QueueError::statement(WHAT, &error))
    }
}
