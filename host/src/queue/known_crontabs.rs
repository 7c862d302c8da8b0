//! What the database remembers of schedules: since when it knows them, and when each was last carried out.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::types::Type;

use super::{QueueError, Session};

/// What the database remembers of a schedule. All programs of the fleet go by it, graphile-worker's as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownCrontab {
    pub known_since: Timestamp,
    /// The latest minute whose job was added.
    pub last_execution: Option<Timestamp>,
}

/// $1 identifiers.
const SELECT: &str = "
select identifier, known_since, last_execution
from @schema@._private_known_crontabs
where identifier = any ($1)";

/// $1 identifiers, $2 time. A schedule that another program entered in the meantime keeps what is known of it.
const INSERT: &str = "
insert into @schema@._private_known_crontabs (identifier, known_since)
select new.identifier, $2
from unnest($1) as new (identifier)
on conflict do nothing";

impl Session {
    /// What is known of the schedules with these identifiers; those that are missing in the answer are unknown.
    pub async fn known_crontabs(&self, identifiers: &[&str]) -> Result<HashMap<String, KnownCrontab>, QueueError> {
        const WHAT: &str = "look up schedules";
        let rows = self.query(WHAT, SELECT, &[(&identifiers, Type::TEXT_ARRAY)]).await?;
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        rows.iter()
            .map(|row| {
                let known_since = row.try_get(1).map_err(read)?;
                let last_execution = row.try_get(2).map_err(read)?;
                Ok((row.try_get(0).map_err(read)?, KnownCrontab { known_since, last_execution }))
            })
            .collect()
    }

    /// Enters schedules that the database does not know, as known since `since` and never carried out.
    pub async fn register_crontabs(&self, identifiers: &[&str], since: Timestamp) -> Result<(), QueueError> {
        // One order for everybody, or two hosts that start at once could wait for each other.
        let mut identifiers = identifiers.to_vec();
        identifiers.sort_unstable();
        let parameters = [(&identifiers as _, Type::TEXT_ARRAY), (&since as _, Type::TIMESTAMPTZ)];
        self.query("enter schedules", INSERT, &parameters).await.map(drop)
    }
}
