//! Write tasks for Taskbay, the Postgres job worker.
//!
//! A plugin is a crate of type `cdylib` whose functions are tasks. Drop the compiled file into the host's tasks folder, and
//! jobs of these tasks run it; replace the file, and the next job runs the new build.
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! taskbay-plugin = "0.1"
//! serde = { version = "1", features = ["derive"] }
//! ```
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
//!     info!(to = %mail.to, attempt = ctx.attempt(), "sending");
//!     Ok(())
//! }
//!
//! plugin!(send_email);
//! # fn main() {}
//! ```
//!
//! # Tasks
//!
//! [`#[task]`](macro@task) goes on an `async fn`, or on a plain `fn`, which runs on the plugin's blocking pool and may
//! compute or block as long as it likes. The function takes nothing, a payload (any type that serde can deserialize), a
//! [`Context`], or a context and a payload, in this order. It returns nothing, [`TaskResult`], or any `Result<(), E>`
//! whose error can become a [`TaskError`].
//!
//! | option | what it does |
//! |---|---|
//! | `name = "mail/send"` | the identifier that jobs name; the function's name unless given |
//! | `timeout = "30s"` | the job is told to stop after that long, then made to; units are `ms`, `s`, `m`, `h` and `d` |
//! | `max_attempts = 5` | the job fails for good at that attempt, even if it was added with more |
//!
//! The first line of the function's documentation is what `taskbay plugins` shows of it.
//!
//! An error fails the job, which is tried again with growing delays; [`TaskError::discard`] fails it for good. A panic
//! fails its job with the message and the place, and nothing else. What is printed or logged with the macros of `tracing`
//! arrives in the host's log with the job's id, its task, the plugin and the build.
//!
//! # State
//!
//! What should be made once per build rather than once per job, such as a connection pool, is the plugin's state:
//!
//! ```
//! use std::sync::Arc;
//!
//! use taskbay_plugin::prelude::*;
//!
//! struct Mailer { server: String }
//!
//! #[derive(Deserialize)]
//! struct Settings { server: String }
//!
//! /// Runs before the first job. An error refuses the build; the one before it goes on.
//! async fn connect(setup: Setup) -> Result<Mailer, TaskError> {
//!     let settings: Settings = setup.settings()?;
//!     Ok(Mailer { server: settings.server })
//! }
//!
//! /// Runs after the last job.
//! async fn close(mailer: Arc<Mailer>) {
//!     info!(server = %mailer.server, "closing");
//! }
//!
//! #[task]
//! async fn send(ctx: Context<Mailer>, to: String) -> TaskResult {
//!     info!(server = %ctx.state().server, %to, "sending");
//!     Ok(())
//! }
//!
//! plugin! { tasks: [send], state: connect, teardown: close, worker_threads: 2 }
//! # fn main() {}
//! ```
//!
//! The settings come from the plugin's section of the host's `taskbay.toml`: `[plugins.mailer.settings]`. During a
//! replacement the old and the new state exist side by side until the old build's last job has ended.
//!
//! # Threads
//!
//! Each plugin has a tokio runtime of its own, with one worker thread unless `worker_threads` says otherwise: `tokio`'s
//! timers and sockets, and crates that use them, work as anywhere. A task that computes for long belongs in a plain `fn`.
#![warn(missing_docs)]

mod context;
mod dispatch;
mod error;
mod export;
mod logs;
mod new_job;
mod panics;
mod setup;

pub use context::Context;
pub use error::{TaskError, TaskResult};
pub use new_job::{KeyMode, NewJob};
pub use setup::Setup;
/// Exports tasks as a plugin; see the [crate's documentation](crate).
///
/// A plugin has at least one task:
///
/// ```compile_fail
/// taskbay_plugin::plugin!();
/// ```
///
/// no two of the same name:
///
/// ```compile_fail
/// use taskbay_plugin::prelude::*;
/// #[task(name = "same")] fn one() {}
/// #[task(name = "same")] fn two() {}
/// plugin!(one, two);
/// ```
///
/// and the state that its tasks ask for:
///
/// ```compile_fail
/// use taskbay_plugin::prelude::*;
/// struct Pool;
/// #[task] fn query(_ctx: Context<Pool>) {}
/// plugin!(query);
/// ```
pub use taskbay_plugin_macros::plugin;
/// Makes a function a task; see the [crate's documentation](crate).
///
/// Mistakes are found at compile time:
///
/// ```compile_fail
/// use taskbay_plugin::prelude::*;
/// #[task(timeout = "soon")] fn a() {}
/// ```
/// ```compile_fail
/// use taskbay_plugin::prelude::*;
/// #[task(retries = 5)] fn a() {}
/// ```
/// ```compile_fail
/// use taskbay_plugin::prelude::*;
/// #[task] fn a(_payload: String, _ctx: Context) {}
/// ```
pub use taskbay_plugin_macros::task;
pub use tokio;
pub use tracing;

/// What a plugin's source begins with: `use taskbay_plugin::prelude::*;`.
pub mod prelude {
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::{json, value::RawValue};
    pub use tracing::{debug, error, info, trace, warn};

    pub use crate::{Context, KeyMode, NewJob, Setup, TaskError, TaskResult, plugin, task};
}

/// What the macros write. Not for people, and changed without notice.
#[doc(hidden)]
pub mod private {
    pub use abi_stable::library::{CheckTypeLayout, LibHeader, RootModuleResult};
    pub use taskbay_abi::{Header, Host, PluginModule_Ref as PluginModule, Str, TaskDef};

    pub use crate::{
        context::Call,
        dispatch::{Needs, Plugin, Run, Task, check_needs, init},
        error::IntoTaskResult,
        export::{check_names, header, root_module, task_def},
        setup::{StateBuilder, build_state, no_state, tear_down},
    };
}
