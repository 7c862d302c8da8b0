//! Watches the revision of the schema while the host runs: one that this program does not know ends it.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::{
    events::{Event, Events},
    migrate::{self, MigrateError, NEWEST, Revision},
    queue::{Database, Notification},
    work::Stop,
};

/// How often to look unasked, for changes that no notification told of.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);

/// Looks at the revision where what was heard says that it may have changed.
#[derive(Debug)]
pub(crate) struct RevisionWatch {
    pub(crate) database: Database,
    pub(crate) heard: mpsc::UnboundedReceiver<Notification>,
    pub(crate) events: Events,
    /// Fired when the host has to end.
    pub(crate) stop: Stop,
    /// As it was at the start.
    pub(crate) known: Revision,
}

impl RevisionWatch {
    /// Goes on until the database is beyond this program, and says so, or until it is dropped, which loses nothing.
    pub(crate) async fn run(mut self) -> MigrateError {
        let mut connected_before = false;
        let mut listening = true;
        loop {
            let look = tokio::select! {
                heard = self.heard.recv(), if listening => match heard {
                    Some(Notification::Migrated { number, .. }) => number > NEWEST,
                    // Nobody heard what happened while the connection was away.
                    Some(Notification::Connected) => std::mem::replace(&mut connected_before, true),
                    Some(Notification::JobsAdded(_)) => false,
                    None => {
                        listening = false;
                        false
                    }
                },
                () = tokio::time::sleep(LOOK_EVERY) => true,
            };
            if look && let Some(error) = self.look().await {
                return error;
            }
        }
    }

    async fn look(&mut self) -> Option<MigrateError> {
        // A database that does not answer, or has no schema at the moment, is what the pool meets as well, and tells of.
        let revision = migrate::current(&self.database).await.ok()??;
        let (number, breaking) = (revision.number, revision.newest_breaking);
        if breaking > NEWEST {
            self.events.emit(Event::Outdated { number, breaking });
            self.stop.graceful.cancel();
            return Some(MigrateError::NewerBreaking {
                database: self.database.name().to_owned(),
                schema: self.database.schema().to_owned(),
                number,
                breaking,
            });
        }
        if number != self.known.number {
            let warning = revision.warning();
            self.events.emit(Event::SchemaReady { number, installed: false, warning });
            self.known = revision;
        }
        None
    }
}
