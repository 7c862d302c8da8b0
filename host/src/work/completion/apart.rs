//! Results that the database refuses as a whole are stored part by part, until those are found that it does not take.

use std::collections::{HashMap, HashSet};

use super::{Batch, Completion};
use crate::queue::{Bisection, QueueError, Session};

/// What has become of them.
#[derive(Debug, Default)]
pub(in crate::work) struct StoredApart {
    pub(in crate::work) stored: Vec<Completion>,
    /// The jobs among those that were not this pool's any more.
    pub(in crate::work) late: HashSet<i64>,
    pub(in crate::work) refused: Vec<(Completion, QueueError)>,
    /// Too many were refused to reach these.
    pub(in crate::work) untried: Vec<Completion>,
}

/// Sends at most `tries` statements of each kind. On another error than a refusal, all completions come back: perhaps some are
/// stored.
pub(in crate::work) async fn store_apart(
    session: &Session,
    owner: &str,
    mut completions: Vec<Completion>,
    tries: usize,
) -> Result<StoredApart, (QueueError, Vec<Completion>)> {
    // Those beside the refused one, of the other kinds, are stored already.
    completions.iter_mut().for_each(|completion| completion.repeated = true);
    let mut late = HashSet::new();
    let mut parts = Bisection::new(completions.len(), tries);
    while let Some(part) = parts.next() {
        let stored = Batch::of(&completions[part.clone()]).store(session, owner).await;
        if let Err(error) = parts.ran(part, stored.map(|missing| late.extend(missing))) {
            return Err((error, completions));
        }
    }
    let parts = parts.end();
    let mut refused: HashMap<usize, QueueError> = parts.refused.into_iter().collect();
    let untried: HashSet<usize> = parts.untried.into_iter().collect();
    let mut apart = StoredApart { late, ..StoredApart::default() };
    for (place, mut completion) in completions.into_iter().enumerate() {
        if let Some(error) = refused.remove(&place) {
            completion.repeated = false;
            apart.refused.push((completion, error));
        } else if untried.contains(&place) {
            apart.untried.push(completion);
        } else {
            apart.stored.push(completion);
        }
    }
    Ok(apart)
}
