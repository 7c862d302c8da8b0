//! The end-to-end tests: real Postgres, real plugins, real processes. One file per part of the product.

mod harness;

// The schema and the statements, beside the npm package's.
mod database;
// Both runners, with a plugin that keeps to no rule.
mod runners;
// What users type and read.
mod commands;
// The private Postgres of a folder.
mod embedded_postgres;
