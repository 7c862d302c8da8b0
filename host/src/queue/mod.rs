//! What is asked of Postgres: one statement per file, named as graphile-worker names them, with the row types beside them.
//!
//! Nothing here knows that plugins exist.

mod connection;

pub use connection::{Database, DatabaseSettings, Job, QueueError, Session};
