//! Hears of new jobs and of new revisions, on a connection of its own.

use std::{future::poll_fn, pin::pin, time::Duration};

use serde_json::Value;
use tokio_postgres::{AsyncMessage, types::Type};

use super::{Database, QueueError, connect::Connection, limits::STAY};

/// Completes "could not …".
pub(crate) const WHAT: &str = "listen for new jobs";

/// A channel of our own, on which another session says something once, to see whether it arrives.
const CHECK: &str = "taskbay:listening";

/// How long what is said there may take.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

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

/// What a connection that listens brings.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Heard<'a> {
    /// From here on notifications arrive.
    Listening,
    /// A message that another session sent did not arrive: a pooler gives the connection to others.
    NotificationsMissing,
    /// On one of the channels of graphile-worker's functions.
    Message { channel: &'a str, payload: &'a str },
}

impl Database {
    /// Listens on a connection of its own until that fails, and returns why it did. `hear` must not block, because nothing else is
    /// heard meanwhile. Nothing is lost when the future is dropped: the connection ends with it.
    pub(crate) async fn listen(&self, mut hear: impl FnMut(Heard<'_>) + Send) -> QueueError {
        // Who only listens misses no answer.
        let mut interrupted = pin!(self.health().silence());
        let (client, mut connection) = match self.connect().await {
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
                    Ok(message) => pass_on(&message, &mut hear),
                    Err(error) => return error,
                },
            }
        }
        hear(Heard::Listening);
        let word = rand::random::<u64>().to_string();
        let mut silence = pin!(say_and_wait(self.clone(), word.clone()));
        let mut waiting = true;
        loop {
            tokio::select! {
                () = &mut interrupted => return QueueError::silence(WHAT),
                next = next_message(&mut connection) => match next {
                    Ok(AsyncMessage::Notification(heard)) if heard.channel() == CHECK => {
                        waiting = waiting && heard.payload() != word;
                    }
                    Ok(message) => pass_on(&message, &mut hear),
                    Err(error) => return error,
                },
                said = &mut silence, if waiting => {
                    waiting = false;
                    if said.is_ok() {
                        hear(Heard::NotificationsMissing);
                    }
                }
            }
        }
    }
}

fn pass_on(message: &AsyncMessage, hear: &mut impl FnMut(Heard<'_>)) {
    if let AsyncMessage::Notification(message) = message {
        hear(Heard::Message { channel: message.channel(), payload: message.payload() });
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

impl Notification {
    /// What a payload says. One that cannot be read comes from an old or foreign program, and stands for one job.
    pub(crate) fn read(channel: &str, payload: &str) -> Option<Self> {
        let told: Value = serde_json::from_str(payload).unwrap_or_default();
        match channel {
            "jobs:insert" => match told.get("count").and_then(Value::as_i64) {
                Some(count) if count <= 0 => None,
                Some(count) => Some(Self::JobsAdded(usize::try_from(count).unwrap_or(usize::MAX))),
                None => Some(Self::JobsAdded(1)),
            },
            "worker:migrate" => {
                let number = i32::try_from(told.get("migrationNumber")?.as_i64()?).ok()?;
                Some(Self::Migrated { number, breaking: told.get("breaking")?.as_bool()? })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_functions_send() {
        let read = Notification::read;
        assert_eq!(read("jobs:insert", r#"{"r":0.5,"count":3}"#), Some(Notification::JobsAdded(3)));
        assert_eq!(read("jobs:insert", r#"{"r":0.5,"count":-1}"#), None);
        assert_eq!(read("jobs:insert", ""), Some(Notification::JobsAdded(1)));
        assert_eq!(
            read("worker:migrate", r#"{"migrationNumber":21,"breaking":true}"#),
            Some(Notification::Migrated { number: 21, breaking: true })
        );
        assert_eq!(read("worker:migrate", "what"), None);
    }
}
