//! Write tasks for [Taskbay](https://github.com/taskbay/taskbay), the Postgres job worker.
//!
//! A plugin is a crate that builds a shared library. It needs one dependency and one line in `Cargo.toml`:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! taskbay-plugin = "0.1"
//! ```
//!
//! A complete plugin:
//!
//! ```
//! use taskbay_plugin::prelude::*;
//!
//! #[derive(Deserialize)]
//! struct SendEmail {
//!     to: String,
//!     subject: String,
//! }
//!
//! /// Sends one e-mail.
//! #[task(timeout = "30s", max_attempts = 5)]
//! async fn send_email(ctx: Context, mail: SendEmail) -> TaskResult {
//!     info!(to = %mail.to, subject = %mail.subject, attempt = ctx.attempt(), "sending");
//!     Ok(())
//! }
//!
//! plugin!(send_email);
//! # fn main() {}
//! ```
//!
//! `cargo build --release`, copy `target/release/lib….so` into the tasks folder, and jobs for `send_email` run this code.
//! Copy the next build over it: the next job runs the new code, and running jobs finish on the old code.
//!
//! # Tasks
//!
//! A task is a function with the attribute [`#[task]`](macro@task). It has up to two parameters, in this order:
//!
//! * the job, as [`Context`], or as [`Context<State>`](Context) for access to the plugin's state. The macro recognizes the
//!   type by its name, so do not rename it;
//! * the payload, as any type that implements `Deserialize`. [`Json`] accepts any payload, and `Box<`[`RawJson`]`>` keeps its
//!   text unchanged. A payload of the wrong shape fails the job with a message that names the field.
//!
//! An `async fn` runs on the plugin's own tokio runtime. It may use anything built on tokio 1, and must not block. A plain
//! `fn` runs on a thread for blocking work, such as file access, computation and synchronous libraries. [Threads](#threads)
//! describes the effect of an async task that blocks.
//!
//! # Outcomes
//!
//! * `Ok` completes the job.
//! * `Err` fails the attempt; the job is retried until its attempts are used up. `?` converts every standard error, and
//!   [`OrFail`] adds a description of the failed operation.
//! * [`TaskError::discard`] fails the job for good.
//! * A panic counts as an error with the panic's message and location.
//! * A [`BatchResult`] has a result for each item of the payload; see [Batches](#batches).
//!
//! A job may run more than once: if the machine dies before the result is stored, another host runs the job again. Make
//! tasks idempotent.
//!
//! # Batches
//!
//! A task with an array as its payload may return a result for each item. Only the failed items are then retried:
//!
//! ```
//! use taskbay_plugin::prelude::*;
//! # #[derive(Deserialize)]
//! # struct Mail { to: String }
//! # async fn send(mail: &Mail) -> TaskResult { Ok(()) }
//!
//! #[task]
//! async fn send_digests(mails: Vec<Mail>) -> BatchResult {
//!     Ok(concurrently(10, mails.iter().map(send)).await)
//! }
//! ```
//!
//! Jobs with the same `job_key` are merged: adding `[{"to": …}]` while a job with that key is waiting appends to its array.
//! [`BatchResult`] documents the rules.
//!
//! # Schedules
//!
//! With `#[task(schedule = "0 4 * * *")]`, a job is added every day at four o'clock (UTC), once for all hosts with the
//! plugin. The text is a crontab line without the task's name, optionally with options and a payload:
//!
//! ```
//! # use taskbay_plugin::prelude::*;
//! #[task(schedule = "0 4 * * * ?fill=1d&tz=Europe/Berlin {\"full\": true}", schedule = "30 * * * * ?id=hourly")]
//! async fn clean_up(options: Json) -> TaskResult {
//!     info!(full = options["full"] == true, "cleaning up");
//!     Ok(())
//! }
//! ```
//!
//! The payload of such a job has an additional field `_cron`, with the time of the schedule and whether the job was
//! backfilled.
//!
//! # Adding jobs
//!
//! [`Context::add_job`] adds one job. [`Context::add_jobs`] adds many in one statement: all or none.
//!
//! # Cancellation
//!
//! When a job exceeds its `timeout`, or the host shuts down, the job is cancelled. [`Context::is_cancelled`] and
//! [`Context::cancelled`] tell the task. A short time later, an async task is dropped at its next `.await`. A plain task
//! cannot be stopped from within its process; a long one should check `is_cancelled` from time to time.
//!
//! # State
//!
//! Shared state, such as a connection pool, is created once for each build of the plugin and torn down after its last job:
//!
//! ```
//! use taskbay_plugin::prelude::*;
//! use std::{fs::File, io::Write, path::PathBuf, sync::Mutex};
//!
//! #[derive(Deserialize)]
//! struct Settings {
//!     file: PathBuf,
//! }
//!
//! struct Journal {
//!     file: Mutex<File>,
//! }
//!
//! fn open(setup: &Setup) -> Result<Journal, TaskError> {
//!     let settings: Settings = setup.settings()?;
//!     let file = File::options().append(true).create(true).open(&settings.file);
//!     let file = file.or_fail(format_args!("cannot open {}", settings.file.display()))?;
//!     Ok(Journal { file: Mutex::new(file) })
//! }
//!
//! fn close(journal: &Journal) -> Result<(), std::io::Error> {
//!     journal.file.lock().unwrap().sync_all()
//! }
//!
//! #[task]
//! fn note(ctx: Context<Journal>, text: String) -> TaskResult {
//!     writeln!(ctx.state().file.lock().unwrap(), "{} {text}", ctx.id())?;
//!     Ok(())
//! }
//!
//! plugin! {
//!     state: open,
//!     teardown: close,
//!     tasks: [note],
//! }
//! # fn main() {}
//! ```
//!
//! The settings come from the plugin's section in the host's `taskbay.toml`. `state` and `teardown` may be `async`.
//! A new build starts while the old one still runs, so both have a state for a short time. If `state` fails, the old build
//! keeps serving, and the host retries the new one at growing intervals, unless the error was created by
//! [`TaskError::discard`].
//!
//! # Log lines
//!
//! The macros of `tracing`, included in the prelude, write to the host's log with the job's id and task. Lines within a span
//! include its fields. Lines of the `log` crate are forwarded as well. Use [`Context::spawn`] for spawned futures: it
//! attributes their lines to the job. Do not install your own subscriber.
//!
//! # Threads
//!
//! A plugin has one thread for its async tasks (`worker_threads` in [`plugin!`]), and as many as needed for plain ones.
//! Threads and futures started by a task must not outlive the state.
//!
//! An async task that blocks (`std::thread::sleep`, a file on a slow disk, a synchronous library, a long computation) stalls
//! the other async jobs on its thread. If no thread is free for a second, a warning names the job and its task, and a spare
//! thread takes over the other jobs. A plugin has four spare threads: a fifth blocked task stalls the rest of the plugin. A
//! blocked task cannot be stopped: at its timeout, the host terminates the plugin's process and thus all jobs in it. Make
//! such a task a plain `fn`, or move the blocking part into `tokio::task::spawn_blocking`.
//!
//! # Tests
//!
//! Tests call tasks as ordinary functions, with a context from [`testing`]. Unit tests work in a `cdylib` crate as in any
//! other.

// The macros write `::taskbay_plugin`, also in the tests of this crate.
extern crate self as taskbay_plugin;

mod batch;
mod calls;
mod context;
mod current;
mod dispatcher;
mod error;
mod ffi;
mod host_link;
mod job;
mod logging;
#[cfg(doctest)]
mod misuse;
mod new_job;
mod panics;
mod payload;
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "not part of the public interface")]
pub mod private;
mod run_queue;
mod runs;
mod setup;
pub mod testing;
mod watch;

pub use serde::{de::Deserialize, ser::Serialize};
pub use serde_json::{Value as Json, json, value::RawValue as RawJson};
pub use taskbay_plugin_macros::{Deserialize, Serialize, plugin, task};
pub use {serde, serde_json, tokio, tracing};

pub use crate::{
    batch::{Concurrently, concurrently},
    context::Context,
    error::{BatchResult, BoxError, OrFail, TaskError, TaskResult},
    new_job::{KeyMode, NewJob, NewJobs, OnHost, Unsent},
    setup::Setup,
};

/// The items that most plugins need: `use taskbay_plugin::prelude::*;`.
pub mod prelude {
    #[doc(no_inline)]
    pub use crate::{
        BatchResult, Context, Deserialize, Json, KeyMode, NewJob, OrFail, RawJson, Serialize, Setup, TaskError,
        TaskResult, bail, concurrently, json, plugin, task,
    };
    #[doc(no_inline)]
    pub use tracing::{debug, error, info, trace, warn};
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
