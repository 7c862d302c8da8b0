//! Which names of tasks the database has never heard of. Workers enter the names of their tasks, and so does whoever adds a job,
//! so a name without an entry is often a mistyped one.

use std::fmt;

use tokio_postgres::types::Type;

use super::{QueueError, RowAccess, Session};

const WHAT: &str = "look up the names of tasks";

/// The most names that are compared with an unknown one.
const COMPARED: i64 = 5_000;

/// $1 how many.
const NAMES: &str = "select identifier from @schema@._private_tasks order by id desc limit $1";

/// A name that no worker has registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTask {
    pub name: String,
    /// The known name that was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for UnknownTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no worker of this database has registered the task {:?} so far, so its jobs wait until one does",
            self.name
        )?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean {nearest:?}?"),
            None => Ok(()),
        }
    }
}

impl Session {
    /// Those of the names that the database does not know. `others` are known names that it need not have yet.
    pub(crate) async fn unknown_tasks(
        &self,
        names: &[&str],
        others: &[String],
    ) -> Result<Vec<UnknownTask>, QueueError> {
        let known = self.known_task_ids(names).await?;
        let unknown: Vec<&str> = names.iter().copied().filter(|name| !known.contains_key(*name)).collect();
        // A role to whom row-level security shows no names does not know which there are.
        if unknown.is_empty() || self.check_row_security(RowAccess::ReadTasks).await?.is_some() {
            return Ok(Vec::new());
        }
        let rows = self.query(WHAT, NAMES, &[(&COMPARED, Type::INT8)]).await?;
        let stored = rows.iter().filter_map(|row| row.try_get::<_, String>(0).ok());
        let candidates: Vec<String> = stored.chain(others.iter().cloned()).collect();
        Ok(unknown
            .into_iter()
            .map(|name| UnknownTask { name: name.to_owned(), nearest: nearest(name, &candidates) })
            .collect())
    }
}

/// The name that differs in a third of its letters at most.
fn nearest(name: &str, candidates: &[String]) -> Option<String> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '.', '/', ':'], "_");
    let wanted = plain(name);
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_one_that_differs_little() {
        let names = ["send_email".to_owned(), "Import-File".to_owned(), "x".to_owned()];
        assert_eq!(nearest("sned_email", &names).as_deref(), Some("send_email"));
        assert_eq!(nearest("import_file", &names).as_deref(), Some("Import-File"));
        assert_eq!(nearest("charge_card", &names), None);
    }
}
