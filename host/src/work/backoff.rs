//! How long to wait before the database is asked again.

use std::time::Duration;

use rand::Rng;

use crate::{
    events::Events,
    queue::{Database, QueueError},
    trouble::Trouble,
};

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// The waits of one activity that is tried until it succeeds.
#[derive(Debug)]
pub(super) struct Backoff {
    database: Database,
    trouble: Trouble,
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(super) fn new(what: &'static str, database: Database, events: Events) -> Self {
        Self { trouble: Trouble::new(what, database.clone(), events), database, next: SHORTEST, longest: LONGEST }
    }

    /// With shorter waits than 10 s.
    pub(super) fn at_most(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }

    /// Waits after a failure: 100 ms at first, twice as long each time up to 10 s, give or take a half, so that many
    /// hosts do not come back in step. When the database is away, what another activity notices of its return ends the wait.
    pub(super) async fn wait(&mut self, error: &QueueError) {
        let retry_in = self.next.mul_f64(rand::rng().random_range(0.5..1.5));
        self.trouble.failed(error, retry_in);
        self.database.health().wait_until_back(retry_in).await;
        self.next = (self.next * 2).min(self.longest);
    }

    /// Notes that it went through.
    pub(super) fn succeeded(&mut self) {
        self.trouble.succeeded();
        self.next = SHORTEST;
    }
}
