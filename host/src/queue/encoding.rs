//! Databases that are not in UTF-8 cannot hold every text. SQL_ASCII takes any bytes; the others refuse characters that they
//! do not have, and with them the whole statement.

use tokio_postgres::{error::SqlState, types::Type};

use super::{QueueError, Session};

const WHAT: &str = "ask which names the database can hold";

/// The database has an encoding in which some character of a parameter does not exist.
pub(crate) fn beyond_encoding(error: &QueueError) -> bool {
    error.code() == Some(&SqlState::UNTRANSLATABLE_CHARACTER)
}

impl Session {
    /// Those of the names that the database can hold, asked for one by one: for use after [`beyond_encoding`], so that one
    /// name does not keep the others from being stored. The log tells the others.
    pub(crate) async fn storable_names<'n>(&self, names: &[&'n str]) -> Result<Vec<&'n str>, QueueError> {
        let mut storable = Vec::new();
        for name in names {
            if !name.is_ascii() {
                match self.query(WHAT, "select $1", &[(name, Type::TEXT)]).await {
                    Err(error) if beyond_encoding(&error) => {
                        let reason = error.reason();
                        tracing::warn!(
                            event = "beyond_encoding",
                            name,
                            "{name} cannot have jobs in this database: {reason}"
                        );
                        continue;
                    }
                    answer => drop(answer?),
                }
            }
            storable.push(*name);
        }
        Ok(storable)
    }
}
