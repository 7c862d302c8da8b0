//! What all that use one database learn from each other: that it is away, that it is back, and that it does not answer.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::{Notify, watch};

use super::{
    QueueError,
    reminders::{News, Reminders},
};

/// So long after an outage, there are still some who have not noticed it before.
const STRAGGLERS: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Health {
    outage: Mutex<Outage>,
    /// Somebody has got through who had not before.
    back: Notify,
    /// When the server was last found to answer nobody.
    silence: watch::Sender<Option<Instant>>,
    clock: Mutex<Option<ClockOffset>>,
}

/// The difference between the clocks of the database server and of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOffset {
    /// In microseconds; positive: the server's clock is ahead.
    pub micros: i64,
    /// The largest error of that: half of the time that the answer took.
    pub uncertainty: Duration,
    /// When it was measured.
    pub at: SystemTime,
}

impl ClockOffset {
    /// From the server's time, in microseconds since the Unix epoch, and the local time before and after the question.
    fn of(server: i64, asked: SystemTime, answered: SystemTime) -> Self {
        let micros = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
            i64::try_from(since).unwrap_or(i64::MAX)
        };
        let uncertainty = answered.duration_since(asked).unwrap_or_default() / 2;
        let middle = micros(asked).midpoint(micros(answered));
        Self { micros: server.saturating_sub(middle), uncertainty, at: answered }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    Unknown,
    Said(Reminders),
    OverSince(Instant),
}

impl Default for Health {
    fn default() -> Self {
        Self {
            outage: Mutex::new(Outage::Unknown),
            back: Notify::new(),
            silence: watch::Sender::new(None),
            clock: Mutex::default(),
        }
    }
}

impl Health {
    /// Whether a connection that was made at this time is to be trusted.
    pub(super) fn trusts(&self, made: Instant) -> bool {
        self.silence.borrow().is_none_or(|silence| silence < made)
    }

    /// Waits for an answer, until the server is found not to answer anybody: then the path to it is interrupted and nobody was
    /// told, and this answer will not come either.
    pub(super) async fn answer<T>(
        &self,
        what: &'static str,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, QueueError> {
        let mut silence = self.silence.subscribe();
        tokio::select! {
            // What is asked is sent at the first poll, in the order of the polls.
            biased;
            answer = asked => answer.map_err(|error| QueueError::statement(what, &error)),
            _ = silence.changed() => Err(QueueError::silence(what)),
        }
    }

    /// Somebody could not get through. One outage is one piece of news, however many notice, and so is each reminder of it.
    pub(crate) fn outage_news(&self) -> News {
        let now = Instant::now();
        let mut outage = self.outage();
        match &mut *outage {
            Outage::Said(reminders) => reminders.news(now),
            Outage::OverSince(when) if when.elapsed() < STRAGGLERS => News::Old,
            Outage::Unknown | Outage::OverSince(_) => {
                *outage = Outage::Said(Reminders::from(now));
                News::First
            }
        }
    }

    /// Somebody has got through who had not before, and nobody else has to wait any longer.
    pub(crate) fn is_back(&self) {
        let mut outage = self.outage();
        if matches!(*outage, Outage::Said(_)) {
            *outage = Outage::OverSince(Instant::now());
        }
        self.back.notify_waiters();
    }

    /// Since when the database cannot be reached, as far as it was noticed; `None`: it can.
    pub(crate) fn unreachable_since(&self) -> Option<Instant> {
        match &*self.outage() {
            Outage::Said(reminders) => Some(reminders.since),
            Outage::Unknown | Outage::OverSince(_) => None,
        }
    }

    /// The difference of the clocks, measured every second while a host shows that it is alive. `None`: not measured yet.
    pub(crate) fn clock_offset(&self) -> Option<ClockOffset> {
        *self.clock()
    }

    /// The server has told its time, in microseconds since the Unix epoch, between these two moments.
    pub(super) fn told_time(&self, server: i64, asked: SystemTime, answered: SystemTime) {
        *self.clock() = Some(ClockOffset::of(server, asked, answered));
    }

    /// Waits so long before the next try, or until somebody else has got through.
    pub(crate) async fn wait_until_back(&self, at_most: Duration) {
        let back = self.back.notified();
        tokio::select! {
            () = back => {}
            () = tokio::time::sleep(at_most) => {}
        }
    }

    /// The server answers nobody: whoever waits for an answer of it waits in vain, and no connection that was made before is to be
    /// used again.
    pub(super) fn found_silent(&self) {
        self.silence.send_replace(Some(Instant::now()));
    }

    /// Returns when the server is found to answer nobody.
    pub(super) async fn silence(&self) {
        let mut silence = self.silence.subscribe();
        // The sender lives as long as this.
        let _ = silence.changed().await;
    }

    fn clock(&self) -> MutexGuard<'_, Option<ClockOffset>> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_clock_is_taken_in_the_middle_of_the_question() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let offset = ClockOffset::of(1_500_000, at(1_000), at(1_200));
        assert_eq!((offset.micros, offset.uncertainty), (400_000, Duration::from_millis(100)));
        assert_eq!(ClockOffset::of(1_000_000, at(1_200), at(1_200)).micros, -200_000);
    }

    #[test]
    fn an_outage_lasts_until_somebody_gets_through() {
        let health = Health::default();
        assert_eq!(health.unreachable_since(), None);
        health.outage_news();
        let since = health.unreachable_since().expect("it is away");
        health.outage_news();
        assert_eq!(health.unreachable_since(), Some(since));
        health.is_back();
        assert_eq!(health.unreachable_since(), None);
    }

    #[test]
    fn an_outage_is_news_once_and_again_when_the_next_one_comes() {
        let health = Health::default();
        assert_eq!(health.outage_news(), News::First);
        assert_eq!(health.outage_news(), News::Old, "the next one who notices");
        health.is_back();
        assert_eq!(health.outage_news(), News::Old, "one who notices late");
        let long_ago = Instant::now().checked_sub(STRAGGLERS).expect("the machine has been up for seconds");
        *health.outage() = Outage::OverSince(long_ago);
        assert_eq!(health.outage_news(), News::First);
    }
}
