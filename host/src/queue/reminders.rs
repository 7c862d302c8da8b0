//! When to say again that something goes on, less and less often.

use std::time::{Duration, Instant};

/// The first reminder comes after this long, and each further one after twice as long …
const FIRST_REMINDER: Duration = Duration::from_secs(30);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// When to say again that something goes on, less and less often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reminders {
    pub(crate) since: Instant,
    next: Instant,
    pause: Duration,
}

/// Whether a failure is to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    First,
    /// It has gone on for this long.
    StillGoingOn(Duration),
    Old,
}

impl Reminders {
    pub(crate) fn from(since: Instant) -> Self {
        Self { since, next: since + FIRST_REMINDER, pause: FIRST_REMINDER }
    }

    pub(crate) fn news(&mut self, now: Instant) -> News {
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
