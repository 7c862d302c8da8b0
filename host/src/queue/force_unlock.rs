//! Takes the locks of owners away that are known to be gone.

use tokio_postgres::types::Type;

use super::{QueueError, Session};

/// $1 owners.
const SQL: &str = "select @schema@.force_unlock_workers($1)";

impl Session {
    /// Unlocks the jobs and queues of these owners. Only for owners that do not live any more: their jobs would run twice.
    pub async fn force_unlock(&self, owners: &[&str]) -> Result<(), QueueError> {
        self.query("unlock jobs", SQL, &[(&owners, Type::TEXT_ARRAY)]).await.map(drop)
    }
}
