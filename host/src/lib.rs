//! Taskbay runs Postgres jobs with task code that is dropped into a folder, and swapped while it runs.
//!
//! # Inside a program of your own
//!
//! The program `taskbay` needs no line of code around it. This library is for programs that want to work jobs themselves,
//! with tasks that are compiled into them, beside a folder of plugins or without one:
//!
//! ```no_run
//! use taskbay::{JobContext, Options, TaskList, queue::NewJob};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct SendEmail {
//!     to: String,
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let tasks = TaskList::new().task("send_email", |mail: SendEmail, job: JobContext| async move {
//!         tracing::info!(to = mail.to, "sending, attempt {}", job.attempt());
//!         Ok(())
//!     });
//!     // The database is that of DATABASE_URL or PG*, unless the options name one.
//!     let runner = taskbay::run(Options::new().tasks(tasks).concurrency(20).handle_signals()).await?;
//!     runner.add_job(&NewJob::with_payload("send_email", &SendEmail { to: "ada@example.com".to_owned() })?).await?;
//!     runner.wait().await?;
//!     Ok(())
//! }
//! ```
//!
//! * [`Options`] say what runs where; [`run`], [`run_once`], [`run_task_list`] and [`run_task_list_once`] run it. A program
//!   that also loads plugins begins its `main` with [`plugin_child`].
//! * [`TaskList`], [`JobContext`] and [`TaskError`] are what tasks are made with.
//! * [`queue::add_job`] adds jobs in a transaction of yours, [`Database::add_jobs`](queue::Database::add_jobs) a hundred
//!   thousand at once.
//! * [`Events::subscribe`](events::Events::subscribe) tells of everything that happens, by graphile-worker's names. The log
//!   goes wherever your [`tracing`] subscriber brings it.
//! * [`Runner::host`] shows the state of the host: its pool, tasks, folder, schedules, liveness, database and settings.
//! * [`get_tasks`] calls the tasks of a folder without a database.
//!
//! [`library`] says which function of graphile-worker is which of these. Nothing here touches signals or the process unless
//! it is asked to.
//!
//! # The way of a job
//!
//! This is also the order of the modules:
//!
//! ```text
//! tasks folder ─ watch ─ scan ─ verify ─ load ──▶ TaskMap (immutable, swapped whole)      tasks, plugin
//!                                                     │ task names → which jobs to claim
//! Postgres ── LISTEN / poll ── claim ── dispatch ─────┤                                   queue, work
//!     ▲                                               ▼
//!     └──────── complete / fail ◀── outcome ── runner: child process · in-process · built-in   plugin
//! ```

// The door: what the user typed, then one validated set of settings.
pub mod cli;
pub mod config;
// The door for programs with tasks of their own.
pub mod library;
// The wiring: starts the stages, stops them in reverse, shows their state.
pub mod host;
pub mod listener;
mod revision_watch;
mod start_up;
mod status_socket;
// What a host cannot work without, and how it ends when that fails.
pub mod parts;
// Files and hashes, off the threads that run everything else.
mod blocking;
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
// What administrators do with jobs, for the command line and for programs that run no jobs.
pub mod admin;
pub mod worker_utils;
// What is said while the database is away.
mod trouble;
// What tells builds apart.
mod build_id;
// Locks and their like, which a checker puts its own in the place of.
mod sync;
// What people read of text from outside.
mod escape;

pub use library::{
    FolderTasks, JobContext, Options, PoolHandle, Runner, TaskDefinition, TaskError, TaskList, TaskResult, get_tasks,
    plugin_child, run, run_once, run_task_list, run_task_list_once,
};
