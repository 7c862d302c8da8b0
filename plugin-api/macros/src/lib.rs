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
/// The function may be `async` or plain; a plain one runs on a thread for blocking work. It takes, in this order and each
/// optional, a `Context` (or `Context<State>`, for the state of its plugin) and a payload of any type that implements
/// `Deserialize`. It returns `TaskResult`, another `Result` without a value whose error is a standard error or text,
/// `BatchResult` for a payload that is worked item by item, or nothing. It stays callable as before, so that tests can call
/// it.
///
/// The first line of its documentation becomes the description of the task.
///
/// | option | meaning | without it |
/// |---|---|---|
/// | `name = "mail/send:now"` | the identifier that jobs name: up to 128 characters, no spaces | the function's name |
/// | `timeout = "30s"` | how long a job may run, in `ms`, `s`, `m` and `h` | the host's settings decide |
/// | `max_attempts = 5` | the job fails for good at this attempt, even if it was added with more | the job decides |
/// | `schedule = "0 4 * * *"` | the host adds a job at these times, by UTC, for as long as it has the plugin; may be given several times, then each but one with another `?id=…` | nobody does |
///
/// A schedule is a line of a crontab without the task's name: minute, hour, day of the month, month, day of the week, then
/// options and a payload if it needs some: `"0 4 * * 1-5 ?tz=Europe/Berlin&fill=1d {\"full\": true}"`.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(options.into(), &item.into()).into()
}

/// Makes the crate a plugin that offers these tasks. A plugin crate has it once.
///
/// Tasks are named by their paths. (`#[task]` makes a hidden type beside the function, so a task cannot be imported where a
/// module has its name: write `echo::echo` there.)
///
/// ```ignore
/// plugin!(send_email, mail::bounce);
/// ```
///
/// The long form, of which only `tasks` is required:
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
/// * `state` takes a `&Setup` and returns a `Result` with the state that tasks see through `Context<State>`. It may be
///   `async`. It runs once for each build of the plugin, before the first job; if it fails, the build is refused and the
///   one before it goes on serving.
/// * `teardown` takes a reference to the state and returns nothing or a `Result`. It may be `async`. It runs after the
///   last job; the state is dropped after it.
/// * `worker_threads` is how many threads run async tasks: 1 unless stated. Spare ones take over where a task blocks its thread.
///   Plain tasks have threads of their own.
#[proc_macro]
pub fn plugin(input: TokenStream) -> TokenStream {
    plugin::expand(input.into()).into()
}

/// As `plugin!`, but gives the header as an expression and exports no symbol: for tests of several plugins at once.
#[doc(hidden)]
#[proc_macro]
pub fn plugin_header(input: TokenStream) -> TokenStream {
    plugin::expand_header(input.into()).into()
}

/// As serde's derive, for crates that have `taskbay-plugin` but not `serde` among their dependencies.
#[proc_macro_derive(Deserialize, attributes(serde))]
pub fn deserialize(item: TokenStream) -> TokenStream {
    derive::expand(item.into(), derive::Direction::Read).into()
}

/// As serde's derive, for crates that have `taskbay-plugin` but not `serde` among their dependencies.
#[proc_macro_derive(Serialize, attributes(serde))]
pub fn serialize(item: TokenStream) -> TokenStream {
    derive::expand(item.into(), derive::Direction::Write).into()
}
