//! What the tests stand on: one Postgres for all of them, a database for each, the example plugins, and the program.

pub mod budget;
pub mod clock;
pub mod cluster;
pub mod jobs;
pub mod ledger;
pub mod node;
pub mod plugins;
pub mod postgres;
pub mod processes;
pub mod program;
pub mod proxy;
pub mod wait;
pub mod workplace;
