//! The end-to-end tests: real Postgres, real plugins, real processes. One file per part of the product.
#![allow(unreachable_pub, reason = "nobody uses a test crate")]

mod harness;

// The rules of the source tree.
mod tidy;
// The schema and the statements, beside the npm package's.
mod database;
// Both runners, with a plugin that keeps to no rule.
mod runners;
// How jobs are claimed, run, completed, failed and given back.
mod worker;
// Claimed jobs that cannot start.
mod given_back;
// A plugin that takes its process down.
mod crashes;
// Tasks that tell how each item of their payload ended, and jobs that are added many at once.
mod batch_jobs;
// What is in a job arrives as it was stored.
mod payloads;
// The examples, each doing what it is an example of.
mod examples;
// Files that cannot be loaded.
mod bad_files;
// How files come, change and go, and which are none.
mod folder;
// Replacing a plugin under load.
mod swap;
// Plugins built as users build them.
mod outside;
// What users type and read.
mod commands;
// The private Postgres of a folder.
mod embedded_postgres;
// From a saved source file to the job that runs it.
mod dev;
