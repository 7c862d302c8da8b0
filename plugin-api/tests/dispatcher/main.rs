//! Plugins, driven through their real headers by a host that the tests play.

mod fake_host;

mod add_job;
mod batches;
mod begin;
mod blocking;
mod cancellation;
mod exports;
mod log_lines;
mod outcomes;
mod panics;
mod state;
