//! Hears of new jobs and of new revisions, on a connection of its own that is made again for as long as it takes.

use std::{future::poll_fn, pin::pin, time::Duration};

use serde_json::Value;
use tokio_postgres::{AsyncMessage, types::Type};
use tokio_util::sync::CancellationToken;
use tracing::Level;

use super::{Database, QueueError, Trouble, connect::Connection, limits::STAY};
use crate::events::{Event, Events};

const WHAT: &str = "listen for new jobs";

/// A channel of our own, on which another session says something once, to see whether it arrives.
const CHECK: &str = "taskbay:listening";

/// How long what is said there may take.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// The longest wait before the next try.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Something that the database told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notification {
    /// From here on notifications arrive. What happened before went unheard, so now is the time to look for jobs.
    Connected,
    /// So many jobs came, or a few less.
    JobsAdded(usize),
    /// Another program has changed the schema.
    Migrated {
        number: i32,
        /// Programs that do not know this revision have to stop.
        breaking: bool,
    },
}

/// Calls `hear` with what the database tells of, until `stop` fires; `hear` must not block, because nothing else is heard
/// meanwhile. While the database is away it tries again for ever, and announces it.
pub async fn listen(
    database: Database,
    hear: impl FnMut(Notification) + Send,
    events: Events,
    stop: CancellationToken,
) {
    let trouble = Trouble::new(WHAT, database.clone(), events.clone());
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
            let error = self.listen_once().await;
            self.failures = self.failures.saturating_add(1);
            let attempts = self.failures.unsigned_abs();
            self.events.emit_if_heard(Level::TRACE, || Event::ListenFailed { attempts, error: error.reason() });
            let retry_in = wait_before(self.failures, rand::random());
            self.trouble.failed(&error, retry_in);
            self.database.wait_until_back(retry_in).await;
        }
    }

    /// Listens until the connection fails, and says why it did.
    async fn listen_once(&mut self) -> QueueError {
        let database = self.database.clone();
        // Who only listens misses no answer.
        let mut interrupted = pin!(database.silence());
        let (client, mut connection) = match self.database.connect().await {
            Ok(both) => both,
            Err(error) => return error,
        };
        let listen = format!("listen \"jobs:insert\"; listen \"worker:migrate\"; listen \"taskbay:listening\"; {STAY}");
        let mut subscribed = pin!(client.batch_execute(&listen));
        // A connection does nothing unless it is polled, so it has to be polled for the statement to get through.
        loop {
            tokio::select! {
                () = &mut interrupted => return QueueError::silence(WHAT),
                done = &mut subscribed => match done {
                    Ok(()) => break,
                    Err(error) => return QueueError::statement(WHAT, &error),
                },
                next = next_message(&mut connection) => match next {
                    Ok(message) => self.pass_on(&message),
                    Err(error) => return error,
                },
            }
        }
        self.trouble.succeeded();
        self.failures = 0;
        self.events.emit(Event::Listening);
        (self.hear)(Notification::Connected);
        let word = rand::random::<u64>().to_string();
        let mut silence = pin!(say_and_wait(self.database.clone(), word.clone()));
        let mut waiting = true;
        loop {
            tokio::select! {
                () = &mut interrupted => return QueueError::silence(WHAT),
                next = next_message(&mut connection) => match next {
                    Ok(AsyncMessage::Notification(heard)) if heard.channel() == CHECK => {
                        waiting = waiting && heard.payload() != word;
                    }
                    Ok(message) => self.pass_on(&message),
                    Err(error) => return error,
                },
                said = &mut silence, if waiting => {
                    waiting = false;
                    if said.is_ok() {
                        self.events.emit(Event::NotificationsMissing);
                    }
                }
            }
        }
    }

    fn pass_on(&mut self, message: &AsyncMessage) {
        let AsyncMessage::Notification(notification) = message else { return };
        self.events.emit_if_heard(Level::TRACE, || Event::Notified {
            channel: notification.channel().to_owned(),
            payload: notification.payload().to_owned(),
        });
        if let Some(told) = read(notification.channel(), notification.payload()) {
            (self.hear)(told);
        }
    }
}

/// Poolers take a LISTEN without a word, and may then give the connection that listens to others. So a session of the pool
/// says something, and this ends when it should have been heard, or with an error if it could not be said.
async fn say_and_wait(database: Database, word: String) -> Result<(), QueueError> {
    const SQL: &str = "select pg_catalog.pg_notify($1, $2)";
    database.session().await?.query(WHAT, SQL, &[(&CHECK, Type::TEXT), (&word, Type::TEXT)]).await?;
    tokio::time::sleep(HEARD_WITHIN).await;
    Ok(())
}

async fn next_message(connection: &mut Connection) -> Result<AsyncMessage, QueueError> {
    match poll_fn(|context| connection.poll_message(context)).await {
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(QueueError::statement(WHAT, &error)),
        None => Err(QueueError::Statement {
            what: WHAT,
            reason: "the connection was closed".to_owned(),
            code: None,
            lost: true,
        }),
    }
}

/// What a payload says. One that cannot be read comes from an old or foreign program, and stands for one job.
fn read(channel: &str, payload: &str) -> Option<Notification> {
    let told: Value = serde_json::from_str(payload).unwrap_or_default();
    match channel {
        "jobs:insert" => match told.get("count").and_then(Value::as_i64) {
            Some(count) if count <= 0 => None,
            Some(count) => Some(Notification::JobsAdded(usize::try_from(count).unwrap_or(usize::MAX))),
            None => Some(Notification::JobsAdded(1)),
        },
        "worker:migrate" => {
            let number = i32::try_from(told.get("migrationNumber")?.as_i64()?).ok()?;
            Some(Notification::Migrated { number, breaking: told.get("breaking")?.as_bool()? })
        }
        _ => None,
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
    fn reads_what_the_functions_send() {
        assert_eq!(read("jobs:insert", r#"{"r":0.5,"count":3}"#), Some(Notification::JobsAdded(3)));
        assert_eq!(read("jobs:insert", r#"{"r":0.5,"count":-1}"#), None);
        assert_eq!(read("jobs:insert", ""), Some(Notification::JobsAdded(1)));
        assert_eq!(
            read("worker:migrate", r#"{"migrationNumber":21,"breaking":true}"#),
            Some(Notification::Migrated { number: 21, breaking: true })
        );
        assert_eq!(read("worker:migrate", "what"), None);
    }

    #[test]
    fn waits_longer_each_time_but_never_more_than_a_minute() {
        assert_eq!(wait_before(1, 1.0).as_millis(), 135);
        assert_eq!(wait_before(1, 0.0).as_millis(), 67);
        assert_eq!(wait_before(3, 1.0).as_millis(), 1004);
        assert_eq!(wait_before(i32::MAX, 1.0), LONGEST_WAIT);
    }
}
