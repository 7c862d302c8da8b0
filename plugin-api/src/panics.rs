//! Records the location and message of a panic for the job's outcome.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe},
    sync::Once,
    thread,
};

use crate::{
    current,
    host_link::{self, Line},
};

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether a panic on this thread is an expected result and goes unreported.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Installs a panic hook in this plugin's own copy of the standard library; the host's hook does not see these panics.
///
/// The hook captures no backtrace: resolving its symbols takes tens of megabytes for each build, which are never freed.
pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        panic::set_hook(Box::new(|info| {
            if EXPECTED.try_with(Cell::get).unwrap_or_default() {
                return;
            }
            let said = said(info.payload());
            let message = match info.location() {
                Some(place) => format!("panicked at {place}: {said}"),
                None => format!("panicked: {said}"),
            };
            let belongs_to_outcome = current::with(|current| current.is_some_and(|current| current.owns_panics));
            if belongs_to_outcome {
                let _ = LAST.try_with(|last| last.replace(Some(message)));
            } else {
                report(&message);
            }
        }));
    });
}

/// Returns whether the code panics, without reporting the panic.
pub(crate) fn would_panic(code: impl FnOnce()) -> bool {
    EXPECTED.set(true);
    let ended = panic::catch_unwind(AssertUnwindSafe(code));
    EXPECTED.set(false);
    ended.is_err()
}

/// The message of the last panic caught on this thread.
pub(crate) fn take(payload: &(dyn Any + Send)) -> String {
    // A resumed panic does not run the hook, so nothing was recorded.
    LAST.try_with(RefCell::take).ok().flatten().unwrap_or_else(|| format!("panicked: {}", said(payload)))
}

fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(with a value that is not text)")
}

/// Logs a panic outside of any job, such as one in a thread started by a task; it would otherwise go unnoticed.
fn report(message: &str) {
    let thread = thread::current();
    let message = format!("thread `{}` {message}", thread.name().unwrap_or("unnamed"));
    let line = Line { level: taskbay_abi::LEVEL_ERROR, target: "panic", message: &message, fields: None };
    current::with(|current| match current {
        Some(current) => current.link.log(current.call, &line),
        None => {
            if let Some(link) = host_link::remembered() {
                link.log(taskbay_abi::INIT_CALL, &line);
            }
        }
    });
}
