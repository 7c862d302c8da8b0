//! The ids by which the database knows the names of tasks.

use std::collections::HashMap;

use tokio_postgres::types::Type;

use super::{QueueError, Session, beyond_encoding};

const WHAT: &str = "look up the ids of tasks";

/// $1 names.
const SELECT: &str = "select identifier, id from @schema@._private_tasks where identifier = any ($1)";

/// $1 names that were not there a moment ago. A conflict uses up an id, so it is left for races.
const INSERT: &str = "
insert into @schema@._private_tasks (identifier)
select name from unnest($1) as missing (name)
where not exists (select from @schema@._private_tasks as task where task.identifier = missing.name)
on conflict do nothing";

impl Session {
    /// The id of each of the names. Names that the database does not know yet are entered; those that its encoding cannot hold
    /// are left out.
    pub async fn task_ids(&self, names: &[&str]) -> Result<HashMap<String, i32>, QueueError> {
        match self.known_or_entered(names).await {
            Err(error) if beyond_encoding(&error) => self.known_or_entered(&self.storable_names(names).await?).await,
            ids => ids,
        }
    }

    async fn known_or_entered(&self, names: &[&str]) -> Result<HashMap<String, i32>, QueueError> {
        let known = self.known_task_ids(names).await?;
        let mut missing: Vec<&str> = names.iter().copied().filter(|name| !known.contains_key(*name)).collect();
        if missing.is_empty() {
            return Ok(known);
        }
        // One order for everybody, or two hosts that start at once could wait for each other.
        missing.sort_unstable();
        missing.dedup();
        self.query(WHAT, INSERT, &[(&missing, Type::TEXT_ARRAY)]).await?;
        self.known_task_ids(names).await
    }

    /// The id of each of the names that the database knows.
    pub(crate) async fn known_task_ids(&self, names: &[&str]) -> Result<HashMap<String, i32>, QueueError> {
        let rows = self.query(WHAT, SELECT, &[(&names, Type::TEXT_ARRAY)]).await?;
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        rows.iter().map(|row| Ok((row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?))).collect()
    }
}
