//! What follows once results are stored, or are not: announcements, jobs that can run now, and results that are held back.

use std::collections::HashSet;

use super::Line;
use crate::{
    queue::{QueueError, Session},
    work::{
        demand::Role,
        store_apart::{StoredApart, store_apart},
        verdict::Verdict,
    },
};

/// How many statements may be sent to find the results that are refused, before others are stored and claimed again.
const TRIES_APART: usize = 200;

impl Line {
    pub(super) async fn after_store(&mut self, stored: Result<HashSet<i64>, QueueError>, mut verdicts: Vec<Verdict>) {
        if verdicts.is_empty() {
            return;
        }
        match stored {
            Ok(late) => {
                self.store_backoff.succeeded();
                self.pool.known().remove(&verdicts);
                self.settled(verdicts, &late, 0);
            }
            Err(error) => {
                self.in_doubt(&mut verdicts);
                self.pool.known().failed(&error);
                self.store_backoff.wait(&error).await;
            }
        }
    }

    /// The database refuses some of the results: finds out which, and holds them back. What is left in `verdicts` is stored, unless
    /// this fails.
    pub(super) async fn store_apart(
        &self,
        session: &Session,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<HashSet<i64>, QueueError> {
        match store_apart(session, self.pool.owner(), std::mem::take(verdicts), TRIES_APART).await {
            Ok(StoredApart { stored, late, refused, untried }) => {
                *verdicts = stored;
                refused.into_iter().for_each(|(verdict, error)| self.pool.hold_result(verdict, &error));
                self.pool.verdicts().add_all(untried);
                Ok(late)
            }
            Err((error, all)) => {
                *verdicts = all;
                Err(error)
            }
        }
    }

    /// Nobody knows whether these are stored. Those that may be sent again are.
    pub(super) fn in_doubt(&self, verdicts: &mut Vec<Verdict>) {
        self.pool.known().doubt(verdicts);
        self.pool.verdicts().add_again(std::mem::take(verdicts));
    }

    /// Announces what is now stored, and has the pool look again where that made a job runnable. Those that came too `late` were
    /// not, and `withdrawn` others are no longer held.
    pub(super) fn settled(&self, verdicts: Vec<Verdict>, late: &HashSet<i64>, withdrawn: usize) {
        let pool = &self.pool;
        pool.speed().learn(&verdicts);
        pool.running().settled(verdicts.len() + withdrawn);
        let frees_a_queue = verdicts.iter().any(Verdict::frees_a_queue);
        if frees_a_queue {
            // Else the queue's next job would wait for one of the turns that the express lane leaves to others.
            pool.demand().marked_jobs_available();
        }
        let comes_back = verdicts.iter().any(Verdict::comes_back);
        if pool.identity().works_once() || comes_back {
            pool.demand().jobs_available();
        }
        if self.role == Role::Overflow {
            pool.wakes().wake_primary();
        }
        if !late.is_empty() {
            // A return, perhaps only because the lock was renewed meanwhile. And while an old run went on, a look took its job for
            // known, even if an unheard claim had locked that since.
            pool.known().look();
        }
        for verdict in verdicts {
            // What is missing at the second try was stored by the first, as far as anybody can tell.
            if !late.is_empty() && !verdict.repeated && late.contains(&verdict.claim.id) {
                verdict.announce_late(pool.events());
            } else {
                verdict.announce(pool.events());
            }
        }
    }
}
