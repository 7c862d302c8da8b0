//! What the tests stand on: one Postgres for all of them, a database for each, the example plugins, and the program.

pub mod ledger;
pub mod plugins;
pub mod processes;
pub mod program;
