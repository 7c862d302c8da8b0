//! What one activity says while the database does not do what it is asked for, until it does again.

use std::time::{Duration, Instant};

use crate::{
    events::{Event, Events},
    queue::{Database, News, QueueError, Reminders},
};

/// The failures of one activity that is tried until it succeeds.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// Completes "could not …", for people.
    what: &'static str,
    database: Database,
    events: Events,
    /// Since the first failure.
    reminders: Option<Reminders>,
}

impl Trouble {
    pub(crate) fn new(what: &'static str, database: Database, events: Events) -> Self {
        Self { what, database, events, reminders: None }
    }

    /// Says what is to be said of a failure. An outage is one piece of news for all activities.
    pub(crate) fn failed(&mut self, error: &QueueError, retry_in: Duration) {
        self.failed_by(error.reason(), error.is_outage(), retry_in);
    }

    /// The same, of a failure that is told in another way.
    pub(crate) fn failed_by(&mut self, error: String, is_outage: bool, retry_in: Duration) {
        let now = Instant::now();
        let own = match &mut self.reminders {
            Some(reminders) => reminders.news(now),
            None => {
                self.reminders = Some(Reminders::from(now));
                News::First
            }
        };
        let news = if is_outage { self.database.health().outage_news() } else { own };
        let reminder = match news {
            News::StillGoingOn(lasted) => Some(lasted),
            News::First | News::Old => None,
        };
        let (what, repeated) = (self.what, news != News::First);
        self.events.emit(Event::DatabaseTrouble { what, error, retry_in, repeated, reminder });
    }

    /// Says that it went through, if it had failed before, and has all others try again at once.
    pub(crate) fn succeeded(&mut self) {
        if let Some(Reminders { since, .. }) = self.reminders.take() {
            self.events.emit(Event::DatabaseBack { what: self.what, lasted: since.elapsed() });
            self.database.health().is_back();
        }
    }
}
