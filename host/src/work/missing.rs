//! Owners whose lock nobody holds, and in how many looks in a row that was so. Each of them is judged by itself.

use std::collections::{HashMap, HashSet, hash_map::Entry};

/// Looks come a second apart, so that this takes two seconds. A host that has lost nothing but its connection is back by then.
const SEEN_LIVING: u32 = 3;
/// Five seconds from when they were found. Nobody here knows since when these are missing: they may have lost their connections in
/// an outage that is just over.
const NEVER_SEEN: u32 = 5;
/// What the dead had sent may still have been under way, so that they are released once more.
const ONCE_MORE: u32 = 8;

#[derive(Debug, Default)]
pub(super) struct Missing {
    /// By the keys of their locks.
    owners: HashMap<i64, Absence>,
}

#[derive(Debug, Clone, Copy)]
struct Absence {
    /// Missing in so many looks in a row.
    looks: u32,
    /// Dead after that many.
    needed: u32,
    released: bool,
}

impl Absence {
    fn new(needed: u32) -> Self {
        Self { looks: 0, needed, released: false }
    }
}

impl Missing {
    /// Takes note of who lives now, and who did in the look before.
    pub(super) fn look(&mut self, before: &HashSet<i64>, living: &HashSet<i64>) {
        for owner in before.difference(living) {
            self.owners.insert(*owner, Absence::new(SEEN_LIVING));
        }
        self.owners.retain(|owner, absence| {
            absence.looks += 1;
            !living.contains(owner)
        });
    }

    /// These have jobs or queues, and nobody holds their locks.
    pub(super) fn found(&mut self, owners: &[i64]) {
        for owner in owners {
            self.owners.entry(*owner).or_insert(Absence::new(NEVER_SEEN));
        }
    }

    /// Nobody has looked for a while.
    pub(super) fn begin_anew(&mut self) {
        self.owners.values_mut().for_each(|absence| absence.looks = 0);
    }

    /// Those that were missing for long enough.
    pub(super) fn dead(&self) -> Vec<i64> {
        let dead = self.owners.iter().filter(|(_, absence)| absence.looks >= absence.needed);
        dead.map(|(owner, _)| *owner).collect()
    }

    /// What they have is released, or with `has_skipped` not all of it.
    pub(super) fn released(&mut self, owners: &[i64], has_skipped: bool) {
        for owner in owners {
            let Entry::Occupied(mut absence) = self.owners.entry(*owner) else { continue };
            if absence.get().released && !has_skipped {
                absence.remove();
            } else {
                absence.insert(Absence { released: !has_skipped, ..Absence::new(ONCE_MORE) });
            }
        }
    }

    /// That failed, and is tried again after as many looks as if they had just gone.
    pub(super) fn not_released(&mut self, owners: &[i64]) {
        for owner in owners {
            if let Some(absence) = self.owners.get_mut(owner) {
                (absence.looks, absence.needed) = (0, SEEN_LIVING);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks so often, and tells who is dead then.
    fn look(missing: &mut Missing, times: u32, living: [i64; 2]) -> Vec<i64> {
        let living = HashSet::from(living);
        for _ in 0..times {
            missing.look(&living, &living);
        }
        let mut dead = missing.dead();
        dead.sort_unstable();
        dead
    }

    fn all() -> HashSet<i64> {
        HashSet::from([1, 2, 3, 4])
    }

    #[test]
    fn each_owner_is_dead_after_looks_of_its_own() {
        let mut missing = Missing::default();
        missing.look(&all(), &HashSet::from([1, 2, 3]));
        assert_eq!(look(&mut missing, 1, [1, 2]), Vec::<i64>::new());
        missing.look(&HashSet::from([1, 2, 3]), &HashSet::from([1, 2]));
        assert_eq!(look(&mut missing, 0, [1, 2]), [4], "3 is missing for the first time");
        assert_eq!(look(&mut missing, 1, [1, 2]), [4]);
        assert_eq!(look(&mut missing, 1, [1, 2]), [3, 4]);
    }

    #[test]
    fn an_owner_that_comes_back_has_never_been_away() {
        let mut missing = Missing::default();
        missing.look(&all(), &HashSet::from([1, 2]));
        assert_eq!(look(&mut missing, 1, [1, 2]), Vec::<i64>::new());
        assert_eq!(look(&mut missing, 1, [3, 4]), Vec::<i64>::new());
        missing.look(&all(), &HashSet::from([1, 2]));
        assert_eq!(look(&mut missing, 1, [1, 2]), Vec::<i64>::new());
        missing.begin_anew();
        assert_eq!(look(&mut missing, 2, [1, 2]), Vec::<i64>::new(), "nobody had looked for a while");
        assert_eq!(look(&mut missing, 1, [1, 2]), [3, 4]);
    }

    #[test]
    fn an_owner_that_nobody_has_seen_is_watched_for_longer() {
        let mut missing = Missing::default();
        missing.found(&[3]);
        assert_eq!(look(&mut missing, 4, [1, 2]), Vec::<i64>::new());
        missing.found(&[3]);
        assert_eq!(look(&mut missing, 1, [1, 2]), [3]);
    }

    #[test]
    fn an_owner_is_released_once_more_if_it_is_still_missing_then() {
        let mut missing = Missing::default();
        missing.found(&[3, 4]);
        assert_eq!(look(&mut missing, 5, [1, 2]), [3, 4]);
        missing.not_released(&[3, 4]);
        assert_eq!(look(&mut missing, 2, [1, 2]), Vec::<i64>::new());
        assert_eq!(look(&mut missing, 1, [1, 2]), [3, 4]);
        missing.released(&[3, 4], true);
        assert_eq!(look(&mut missing, 8, [1, 2]), [3, 4], "something was left");
        missing.released(&[3, 4], false);
        assert_eq!(look(&mut missing, 7, [1, 4]), Vec::<i64>::new());
        assert_eq!(look(&mut missing, 1, [1, 4]), [3]);
        missing.released(&[3], false);
        assert_eq!(look(&mut missing, 20, [1, 4]), Vec::<i64>::new());
    }
}
