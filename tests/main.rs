//! The end-to-end tests: real Postgres, real plugins, real processes. One file per part of the product.
#![allow(unreachable_pub, reason = "nobody uses a test crate")]

mod harness;

// The rules of the source tree.
mod tidy;
// The schema and the statements, beside the npm package's.
mod database;
// From the schema of every release of the npm package to ours.
mod upgrades;
// Both runners, with a plugin that keeps to no rule.
mod runners;
// How jobs are claimed, run, completed, failed and given back.
mod worker;
// Short jobs, each written once.
mod express;
// The same, with the connection lost at each message.
mod cut_off;
// And with harm done at each await point.
mod await_points;
// What a pool leaves to others, and how it looks after locks.
mod plugins_command;
mod pool;
// The way to the database.
mod connections;
// What goes wrong upstream and must not here.
mod defects;
// What docs/parity.md says of all that.
mod parity;
// Side by side with workers of the npm package.
mod fleet;
// Payloads that are arrays, whose items fail one by one.
mod batch_jobs;
// Hosts that die, and hosts that only seem to.
mod liveness;
// Hosts that take turns.
mod deploys;
// A job that the database refuses to store, to claim or to show.
mod refused;
// Postgres that is away, each way it can be, and what that costs.
mod chaos;
mod failover;
mod outages;
// Clocks that are set.
mod clocks;
// All of that at random.
mod torture;
// Claimed jobs that cannot start.
mod given_back;
// What plugins are kept from, and secrets from everybody.
mod security;
// Large numbers and large things: what there is a bound for.
mod limits;
// A plugin that takes its process down.
mod crashes;
// And one that did not before it was replaced.
mod roll_back;
// Tasks and jobs of programs that embed the host.
mod library;
// Jobs that a clock adds.
mod cron;
// What is in a job arrives as it was stored.
mod payloads;
// The examples, each doing what it is an example of.
mod examples;
// Files that cannot be loaded.
mod bad_files;
// Start-ups that fail for a while, and what the running hosts tell of it.
mod start_ups;
// Executable files as tasks.
mod executables;
// How files come, change and go, and which are none.
mod folder;
// Replacing a plugin under load.
mod swap;
// Plugins built as users build them.
mod outside;
// What users type and read.
mod commands;
mod terminal;
// Jobs that the lines of a file are.
mod add_file;
// Where settings come from, and which of them counts.
mod settings;
// A settings file that changes while the host runs.
mod reload;
// What the host tells systemd.
mod service_manager;
// The host as a process: its log, its threads, its parts, and its place as the first process of a container.
mod process;
// Jobs in the hands of administrators: by the command line, and by the library.
mod admin;
mod jobs_command;
mod worker_utils;
// The private Postgres of a folder.
mod embedded_postgres;
// Schedules, as they are written.
mod crontab;
// From a saved source file to the job that runs it.
mod dev;
