//! What the tests stand on: one Postgres for all of them, a database for each, the example plugins, and the program.

pub(crate) mod node;
pub(crate) mod postgres;
