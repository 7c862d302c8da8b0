//! Results that the database refuses as a whole are stored part by part, until those are found that it does not take.

use std::collections::{HashMap, HashSet};

use super::verdict::{Results, Verdict};
use crate::queue::{Bisection, QueueError, Session};

/// What has become of them.
#[derive(Debug, Default)]
pub(super) struct StoredApart {
    pub(super) stored: Vec<Verdict>,
    /// The jobs among those that were not this pool's any more.
    pub(super) late: HashSet<i64>,
    pub(super) refused: Vec<(Verdict, QueueError)>,
    /// Too many were refused to reach these.
    pub(super) untried: Vec<Verdict>,
}

/// Sends at most `tries` statements of each kind. On another error than a refusal, all verdicts come back: perhaps some are stored.
pub(super) async fn store_apart(
    session: &Session,
    owner: &str,
    mut verdicts: Vec<Verdict>,
    tries: usize,
) -> Result<StoredApart, (QueueError, Vec<Verdict>)> {
    // Those beside the refused one, of the other kinds, are stored already.
    verdicts.iter_mut().for_each(|verdict| verdict.repeated = true);
    let mut late = HashSet::new();
    let mut parts = Bisection::new(verdicts.len(), tries);
    while let Some(part) = parts.next() {
        let stored = Results::of(&verdicts[part.clone()]).store(session, owner).await;
        if let Err(error) = parts.ran(part, stored.map(|missing| late.extend(missing))) {
            return Err((error, verdicts));
        }
    }
    let parts = parts.end();
    let mut refused: HashMap<usize, QueueError> = parts.refused.into_iter().collect();
    let untried: HashSet<usize> = parts.untried.into_iter().collect();
    let mut apart = StoredApart { late, ..StoredApart::default() };
    for (place, mut verdict) in verdicts.into_iter().enumerate() {
        if let Some(error) = refused.remove(&place) {
            verdict.repeated = false;
            apart.refused.push((verdict, error));
        } else if untried.contains(&place) {
            apart.untried.push(verdict);
        } else {
            apart.stored.push(verdict);
        }
    }
    Ok(apart)
}
