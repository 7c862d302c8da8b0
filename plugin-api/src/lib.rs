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
//! and this is a whole one:
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
//! Copy the next build over it, and the next job runs the new code, while the jobs that run finish on the old.
//!
//! # Tasks
//!
//! A task is a function with the attribute [`#[task]`](macro@task). It takes, in this order and each optional:
//!
//! * the job, as [`Context`], or [`Context<State>`](Context) if it needs the plugin's state. The macro knows it by its
//!   name, so do not rename the type;
//! * the payload, as any type that implements `Deserialize`. [`Json`] takes any payload, and `Box<`[`RawJson`]`>` keeps its
//!   text as it is. A payload that does not fit fails the job with a message that names the field.
//!
//! An `async fn` runs on the plugin's own tokio runtime: it must not block, and may use everything that needs tokio 1. A
//! plain `fn` runs on a thread for blocking work: for files, computations, and libraries that are not async. [Threads](#threads)
//! says what happens to an async task that blocks all the same.
//!
//! # Outcomes
//!
//! * `Ok` completes the job.
//! * `Err` fails it; it is tried again later until it has used up its attempts. `?` works on every standard error, and
//!   [`OrFail`] says in front of it what was tried.
//! * [`TaskError::discard`] fails it for good.
//! * A panic fails it like an error, with the message and the place of the panic.
//!
//! * A list of results, [`BatchResult`], fails the items of the payload one by one; see below.
//!
//! A job may run more than once: if the machine dies before the end of a job is stored, another one runs it again. Write
//! tasks so that this does no harm.
//!
//! # Batches
//!
//! A task whose payload is an array may give a result for each item, and then only those that failed are tried again:
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
//! Jobs with one key gather their items: whoever adds `[{"to": …}]` with `job_key` while such a job waits appends to its
//! array. [`BatchResult`] has the rules.
//!
//! # Schedules
//!
//! `#[task(schedule = "0 4 * * *")]` has the host add a job every day at four o'clock (UTC), once for all hosts that have the
//! plugin. The text is a line of a crontab without the task's name, with options and a payload if need be:
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
//! The payload of such a job has a field `_cron` besides: when it was due, and whether that was made up for later.
//!
//! # Adding jobs
//!
//! [`Context::add_job`] adds one, [`Context::add_jobs`] adds many in one statement: all or none.
//!
//! # Cancellation
//!
//! When a job has run longer than its `timeout`, or the host shuts down, the task is told: [`Context::is_cancelled`],
//! [`Context::cancelled`]. A short time later an async task is dropped at its next `.await`. A plain one cannot be stopped
//! from inside the process, so one that runs long should look at `is_cancelled` now and then.
//!
//! # State
//!
//! What all jobs share, such as a pool of connections, is built once for each build of the plugin and torn down after the
//! last job:
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
//! The settings are those under the plugin's name in the host's `taskbay.toml`. `state` and `teardown` may be `async`.
//! While a new build starts, the old one still runs: for a short time both have a state.
//! If `state` fails, the old build serves on, and the host tries the new one again after a growing wait, unless the error is made by
//! [`TaskError::discard`].
//!
//! # Log lines
//!
//! The macros of `tracing`, which the prelude has, write to the host's log with the job's id and task; fields of spans are
//! added to the lines inside them. Lines of the `log` crate arrive as well. What a task spawns keeps its job if it is
//! spawned with [`Context::spawn`]. Do not install a subscriber of your own.
//!
//! # Threads
//!
//! A plugin has one thread for its async tasks (`worker_threads` in [`plugin!`]) and as many as needed for plain ones. Do not
//! leave threads or `tokio::spawn`ed work behind that outlive the state.
//!
//! An async task that blocks (`std::thread::sleep`, a file on a slow disk, a library that is not async, a long computation)
//! keeps its thread from the other async jobs of its plugin. If no thread comes back for a second, a warning in the log names
//! the job and its task, and a spare thread goes on with the others. There are four of those, so four tasks may block at once
//! before the rest of the plugin has to wait. A blocked task cannot be stopped: at its timeout, the host ends the whole process
//! of the plugin, with all that runs in it. Make such a task a plain `fn`, or move what blocks into
//! `tokio::task::spawn_blocking`.
//!
//! # Tests
//!
//! [`testing`] makes a context, so that tests call tasks as the functions they are. A crate of the type `cdylib` has unit
//! tests like any other.

// The macros write `::taskbay_plugin`, also in the tests of this crate.
extern crate self as taskbay_plugin;

mod batch;
mod border;
mod calls;
mod context;
mod current;
mod dispatcher;
mod error;
mod host_link;
mod intake;
mod job;
mod logging;
#[cfg(doctest)]
mod misuse;
mod new_job;
mod panics;
mod payload;
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "no part of the interface for people")]
pub mod private;
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

/// What a plugin usually needs: `use taskbay_plugin::prelude::*;`.
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
