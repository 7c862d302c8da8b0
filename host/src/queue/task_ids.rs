//! The ids that the database has given to the names of tasks.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio_postgres::types::{ToSql, Type};

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

/// Tasks with the ids that they had when the database was asked.
///
/// Ids change under a running host: a clean-up removes tasks without jobs, whose next job brings a new id, and after a
/// `truncate … restart identity` or a new installation of the schema the same id is another task's. So a claim compares the names, and
/// brings nothing when one of the ids is another task's by now.
#[derive(Debug, Default)]
pub struct TaskIds {
    /// In ascending order, each with the name at the same place: claims are remembered by them.
    ids: Vec<i32>,
    names: Vec<Box<str>>,
    /// The same names, for those who keep one with each job.
    shared_names: Vec<Arc<str>>,
    outdated: AtomicBool,
}

impl TaskIds {
    fn new(by_name: HashMap<String, i32>) -> Self {
        let mut all: Vec<(i32, Box<str>)> = by_name.into_iter().map(|(name, id)| (id, name.into())).collect();
        all.sort_unstable();
        let shared_names = all.iter().map(|(_, name)| Arc::from(&**name)).collect();
        let (ids, names) = all.into_iter().unzip();
        Self { ids, names, shared_names, outdated: AtomicBool::new(false) }
    }

    /// The id of a task.
    pub fn id(&self, name: &str) -> Option<i32> {
        self.names.iter().position(|known| **known == *name).map(|place| self.ids[place])
    }

    /// The task with this id.
    pub fn name(&self, id: i32) -> Option<&Arc<str>> {
        self.ids.binary_search(&id).ok().map(|place| &self.shared_names[place])
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether a claim has found that not all of the tasks have these ids any more. Then it is time to ask again.
    pub fn are_outdated(&self) -> bool {
        self.outdated.load(Ordering::Acquire)
    }

    /// A claim has found that so many of them are still right.
    pub(super) fn confirmed(&self, right: usize) {
        if right < self.ids.len() {
            self.outdated.store(true, Ordering::Release);
        }
    }

    pub(super) fn ids(&self) -> &[i32] {
        &self.ids
    }

    /// Ids and names.
    pub(super) fn parameters(&self) -> [(&(dyn ToSql + Sync), Type); 2] {
        [(&self.ids, Type::INT4_ARRAY), (&self.names, Type::TEXT_ARRAY)]
    }
}

impl Session {
    /// The tasks of these names with their ids. Names that the database does not know yet are entered; those that its encoding
    /// cannot hold are left out.
    pub async fn task_ids(&self, names: &[&str]) -> Result<TaskIds, QueueError> {
        let ids = match self.known_or_entered(names).await {
            Err(error) if beyond_encoding(&error) => self.known_or_entered(&self.storable_names(names).await?).await,
            ids => ids,
        };
        ids.map(TaskIds::new)
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

    pub(super) async fn known_task_ids(&self, names: &[&str]) -> Result<HashMap<String, i32>, QueueError> {
        let rows = self.query(WHAT, SELECT, &[(&names, Type::TEXT_ARRAY)]).await?;
        let read = |error: tokio_postgres::Error| QueueError::statement(WHAT, &error);
        rows.iter().map(|row| Ok((row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_ids_is_always_the_same() {
        let of = |first: i32| (0..50).map(move |n| (format!("task {}", (n + first) % 50), (n + first) % 50));
        let (some, same) = (TaskIds::new(of(0).collect()), TaskIds::new(of(7).collect()));
        assert_eq!(some.ids, same.ids);
        assert!(some.ids.is_sorted());
        assert_eq!(some.id("task 7"), Some(7));
        assert_eq!(some.name(7).map(|name| &**name), Some("task 7"));
        assert_eq!(some.name(50), None);
    }
}
