//! What follows once results are stored, or are not: announcements, jobs that can run now, and results that are held back.

use std::collections::HashSet;

use super::Line;
use crate::{
    queue::{QueueError, Session},
    work::{
        completion::{Completion, StoredApart, store_apart},
        demand::Role,
    },
};

/// How many statements may be sent to find the results that are refused, before others are stored and claimed again.
const TRIES_APART: usize = 200;

impl Line {
    pub(super) async fn after_store(
        &mut self,
        stored: Result<HashSet<i64>, QueueError>,
        mut completions: Vec<Completion>,
    ) {
        if completions.is_empty() {
            return;
        }
        match stored {
            Ok(late) => {
                self.store_backoff.succeeded();
                self.pool.known().remove(&completions);
                self.settled(completions, &late, 0);
            }
            Err(error) => {
                self.in_doubt(&mut completions);
                self.pool.known().failed(&error);
                self.store_backoff.wait(&error).await;
            }
        }
    }

    /// The database refuses some of the results: finds out which, and holds them back. What is left in `completions` is stored, unless
    /// this fails.
    pub(super) async fn store_apart(
        &self,
        session: &Session,
        completions: &mut Vec<Completion>,
    ) -> Result<HashSet<i64>, QueueError> {
        match store_apart(session, self.pool.owner(), std::mem::take(completions), TRIES_APART).await {
            Ok(StoredApart { stored, late, refused, untried }) => {
                *completions = stored;
                refused.into_iter().for_each(|(completion, error)| self.pool.hold_result(completion, &error));
                self.pool.completions().add_all(untried);
                Ok(late)
            }
            Err((error, all)) => {
                *completions = all;
                Err(error)
            }
        }
    }

    /// Nobody knows whether these are stored. Those that may be sent again are.
    pub(super) fn in_doubt(&self, completions: &mut Vec<Completion>) {
        self.pool.known().doubt(completions);
        self.pool.completions().add_again(std::mem::take(completions));
    }

    /// Announces what is now stored, and has the pool look again where that made a job runnable. Those that came too `late` were
    /// not, and `withdrawn` others are no longer held.
    pub(super) fn settled(&self, completions: Vec<Completion>, late: &HashSet<i64>, withdrawn: usize) {
        let pool = &self.pool;
        pool.speed().learn(&completions);
        pool.running().settled(completions.len() + withdrawn);
        let frees_a_queue = completions.iter().any(Completion::frees_a_queue);
        if frees_a_queue {
            // Else the queue's next job would wait for one of the turns that the express lane leaves to others.
            pool.demand().marked_jobs_available();
        }
        let comes_back = completions.iter().any(Completion::comes_back);
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
        for completion in completions {
            // What is missing at the second try was stored by the first, as far as anybody can tell.
            if !late.is_empty() && !completion.repeated && late.contains(&completion.claim.id) {
                completion.announce_late(pool.events());
            } else {
                completion.announce(pool.events());
            }
        }
    }
}
