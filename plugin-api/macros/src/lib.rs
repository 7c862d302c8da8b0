//! The macros of `taskbay-plugin`, which re-exports and documents them.

mod derive;
mod forgotten;
mod options;
mod plugin;
mod schedule;
mod task;

use proc_macro::TokenStream;

/// Makes a function a task.
///
/// The function may be `async` or plain; a plain one runs on a thread for blocking work. Its parameters, both optional, are
/// a `Context` (or `Context<State>`, for the state of its plugin) and then a payload of any type that implements
/// `Deserialize`. It returns nothing, `TaskResult`, another `Result<(), E>` with a standard error or text as `E`, or
/// `BatchResult` for a payload processed item by item. The function itself stays unchanged, so tests can call it.
///
/// The first line of its documentation becomes the description of the task.
///
/// | option | meaning | default |
/// |---|---|---|
/// | `name = "mail/send:now"` | the task's name in jobs: up to 128 characters, no spaces | the function's name |
/// | `timeout = "30s"` | the time limit of a job, in `ms`, `s`, `m` and `h` | from the host's settings |
/// | `max_attempts = 5` | the attempt after which a job fails for good, even if it was added with more | from the job |
/// | `schedule = "0 4 * * *"` | the times, in UTC, at which the host adds a job while it has the plugin; may be given several times, all but one with a different `?id=…` | none |
///
/// A schedule is a crontab line without the task's name: minute, hour, day of the month, month, day of the week, then
/// optionally options and a payload: `"0 4 * * 1-5 ?tz=Europe/Berlin&fill=1d {\"full\": true}"`.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(options.into(), &item.into()).into()
}

/// Makes the crate a plugin with these tasks. It is used once in a plugin crate.
///
/// Tasks are named by their paths. (`#[task]` generates a hidden type beside the function, so a task cannot be imported next
/// to a module of the same name: write `echo::echo` instead.)
///
/// ```ignore
/// plugin!(send_email, mail::bounce);
/// ```
///
/// In the long form, only `tasks` is required:
///
/// ```ignore
/// plugin! {
///     state: connect,
///     teardown: close,
///     tasks: [send_email, mail::bounce],
///     worker_threads: 2,
/// }
/// ```
///
/// * `state` takes a `&Setup` and returns a `Result` with the state, which tasks access through `Context<State>`. It may be
///   `async`. It runs once for each build of the plugin, before the first job; if it fails, the build is refused and the
///   one before it goes on serving.
/// * `teardown` takes a reference to the state and returns nothing or a `Result`. It may be `async`. It runs after the
///   last job; the state is dropped after it.
/// * `worker_threads` is the number of threads for async tasks, 1 by default. Spare threads take over when a task blocks its
///   thread. Plain tasks have threads of their own.
#[proc_macro]
pub fn plugin(input: TokenStream) -> TokenStream {
    plugin::expand(input.into()).into()
}

/// Like `plugin!`, but returns the header as an expression and exports no symbol, for tests with several plugins.
#[doc(hidden)]
#[proc_macro]
pub fn plugin_header(input: TokenStream) -> TokenStream {
    plugin::expand_header(input.into()).into()
}

/// Like serde's derive, for crates with `taskbay-plugin` but without `serde` among their dependencies.
#[proc_macro_derive(Deserialize, attributes(serde))]
pub fn deserialize(item: TokenStream) -> TokenStream {
    derive::expand(item.into(), derive::Direction::Read).into()
}

/// Like serde's derive, for crates with `taskbay-plugin` but without `serde` among their dependencies.
#[proc_macro_derive(Serialize, attributes(serde))]
pub fn serialize(item: TokenStream) -> TokenStream {
    derive::expand(item.into(), derive::Direction::Write).into()
}
