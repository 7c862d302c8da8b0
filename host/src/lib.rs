//! Taskbay runs Postgres jobs with task code that is dropped into a folder, and swapped while it runs.
//!
//! This is the way of a job, and the order of the modules:
//!
//! ```text
//! tasks folder ─ watch ─ scan ─ verify ─ load ──▶ TaskMap (immutable, swapped whole)      tasks, plugin
//!                                                     │ task names → which jobs to claim
//! Postgres ── LISTEN / poll ── claim ── dispatch ─────┤                                   queue, work
//!     ▲                                               ▼
//!     └──────── complete / fail ◀── outcome ── runner: child process · in-process          plugin
//! ```

// The door: what the user typed, then one validated set of settings.
pub mod cli;
pub mod config;
// The wiring: starts the stages, stops them in reverse.
pub mod host;
// Everything that can be observed.
pub mod events;
// A folder becomes a task map.
pub mod tasks;
// One build of a plugin, and the border to its code.
pub mod plugin;
// A job becomes an outcome.
pub mod work;
// When jobs are added by themselves: how it is written, then who does it.
pub mod cron;
pub mod crontab;
// What is asked of Postgres.
pub mod queue;
// Where the database comes from.
pub mod embedded_postgres;
pub mod migrate;
// For programs that administer jobs without running any.
pub mod worker_utils;
