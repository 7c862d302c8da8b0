//! What one activity says while the database does not do what it is asked for, until it does again.

use std::time::{Duration, Instant};

use super::{Database, QueueError};
use crate::events::{Event, Events};

/// The first reminder comes after this long, and each further one after twice as long …
const FIRST_REMINDER: Duration = Duration::from_secs(30);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

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

/// When to say again that something goes on, less and less often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reminders {
    since: Instant,
    next: Instant,
    pause: Duration,
}

/// Whether a failure is to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    First,
    /// It has gone on for this long.
    StillGoingOn(Duration),
    Old,
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
        let news = if is_outage { self.database.outage_news() } else { own };
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
            self.database.is_back();
        }
    }
}

impl Reminders {
    pub(super) fn from(since: Instant) -> Self {
        Self { since, next: since + FIRST_REMINDER, pause: FIRST_REMINDER }
    }

    pub(super) fn news(&mut self, now: Instant) -> News {
        if now < self.next {
            return News::Old;
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.next = now + self.pause;
        News::StillGoingOn(now - self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reminders_come_less_and_less_often_but_never_end() {
        let since = Instant::now();
        let mut reminders = Reminders::from(since);
        let told: Vec<u64> =
            (0..40_000).filter(|second| reminders.news(since + Duration::from_secs(*second)) != News::Old).collect();
        assert_eq!(told[..8], [30, 90, 210, 450, 930, 1890, 3810, 7410]);
        assert!(told[7..].windows(2).all(|pair| pair[1] - pair[0] == 3600), "{told:?}");
    }
}
