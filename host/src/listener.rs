//! Keeps a connection that listens for new jobs, and makes another one for as long as it takes.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::{
    events::{Event, Events},
    queue::{Database, Heard, LISTENING, Notification},
    trouble::Trouble,
};

/// The longest wait before the next try.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Calls `hear` with what the database tells of, until `stop` fires; `hear` must not block, because nothing else is heard
/// meanwhile. While the database is away it tries again for ever, and announces it.
pub async fn listen(
    database: Database,
    hear: impl FnMut(Notification) + Send,
    events: Events,
    stop: CancellationToken,
) {
    let trouble = Trouble::new(LISTENING, database.clone(), events.clone());
    let mut listener = Listener { database, hear, events, trouble, failures: 0 };
    // Nothing is lost by leaving at any point: the connection ends with the future that holds it.
    let _ = stop.run_until_cancelled(listener.keep_listening()).await;
    listener.events.emit(Event::ListenReleased);
}

struct Listener<H> {
    database: Database,
    hear: H,
    events: Events,
    trouble: Trouble,
    /// Since the last time that it went through.
    failures: i32,
}

impl<H: FnMut(Notification) + Send> Listener<H> {
    async fn keep_listening(&mut self) {
        loop {
            let attempts = self.failures.unsigned_abs().saturating_add(1);
            self.events.emit(Event::ListenConnecting { attempts });
            let database = self.database.clone();
            let error = database.listen(|heard| self.heard(heard)).await;
            self.failures = self.failures.saturating_add(1);
            let attempts = self.failures.unsigned_abs();
            self.events.emit_if_heard(Level::TRACE, || Event::ListenFailed { attempts, error: error.reason() });
            let retry_in = wait_before(self.failures, rand::random());
            self.trouble.failed(&error, retry_in);
            self.database.health().wait_until_back(retry_in).await;
        }
    }

    fn heard(&mut self, heard: Heard<'_>) {
        match heard {
            Heard::Listening => {
                self.trouble.succeeded();
                self.failures = 0;
                self.events.emit(Event::Listening);
                (self.hear)(Notification::Connected);
            }
            Heard::NotificationsMissing => self.events.emit(Event::NotificationsMissing),
            Heard::Message { channel, payload } => {
                self.events.emit_if_heard(Level::TRACE, || Event::Notified {
                    channel: channel.to_owned(),
                    payload: payload.to_owned(),
                });
                if let Some(notification) = Notification::read(channel, payload) {
                    (self.hear)(notification);
                }
            }
        }
    }
}

/// 0.1 s after the first failure, e times as long after each further one, and a minute at most; up to half of it less by
/// chance (`random` is between 0 and 1), so that not all hosts come back in the same moment.
fn wait_before(failures: i32, random: f64) -> Duration {
    let nominal = (0.05 * f64::from(failures).exp()).min(LONGEST_WAIT.as_secs_f64());
    Duration::from_secs_f64(nominal * (0.5 + random.sqrt() / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_but_never_more_than_a_minute() {
        assert_eq!(wait_before(1, 1.0).as_millis(), 135);
        assert_eq!(wait_before(1, 0.0).as_millis(), 67);
        assert_eq!(wait_before(3, 1.0).as_millis(), 1004);
        assert_eq!(wait_before(i32::MAX, 1.0), LONGEST_WAIT);
    }
}
