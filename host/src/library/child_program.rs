//! The program in which isolated plugins run: the one that embeds the host, if it is prepared for that.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether this program called [`plugin_child`].
static PREPARED: AtomicBool = AtomicBool::new(false);

/// For programs that load plugins from a folder: each plugin runs in a process of its own, which is this same program again.
/// Call it first of all in `main`, before any thread is started, and return what it gives.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     if let Some(ended) = taskbay::plugin_child() {
///         return ended;
///     }
///     // … what the program does otherwise.
///     ExitCode::SUCCESS
/// }
/// ```
pub fn plugin_child() -> Option<ExitCode> {
    PREPARED.store(true, Ordering::Relaxed);
    let asked = std::env::args_os().nth(1).is_some_and(|command| command == "plugin-child");
    asked.then(crate::plugin::plugin_child)
}

/// This program, unless it would begin its usual work when it is started for a plugin.
pub(super) fn this_program() -> Option<PathBuf> {
    PREPARED.load(Ordering::Relaxed).then(|| PathBuf::from("/proc/self/exe"))
}
