//! Waits for a database that is not there yet, as after a restart of the whole machine.

use std::time::Duration;

use crate::{
    events::Events,
    migrate::{self, MigrateError, Revision},
    queue::Database,
    trouble::Trouble,
};

const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

/// Prepares the database. While it cannot be reached it is tried again for ever; what will not go away by itself, such as a
/// wrong password or a schema that cannot be worked, is an error at once.
pub(crate) async fn prepare_when_there(database: &Database, events: &Events) -> Result<Revision, MigrateError> {
    let mut retry_in = SHORTEST;
    let mut trouble = Trouble::new("prepare the database", database.clone(), events.clone());
    loop {
        match migrate::prepare(database).await {
            Err(error) if error.is_temporary() => {
                trouble.failed_by(error.to_string(), error.is_outage(), retry_in);
                tokio::time::sleep(retry_in).await;
                retry_in = (retry_in * 2).min(LONGEST);
            }
            result => {
                if result.is_ok() {
                    trouble.succeeded();
                }
                return result;
            }
        }
    }
}
