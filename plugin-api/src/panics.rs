//! Where a panic happened and what it said, kept for the outcome of the job.

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
    /// A panic is an answer here.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Installs the hook in this plugin's own copy of the standard library, which the host's hook never hears of.
///
/// It takes no backtrace: to name the functions of one costs tens of megabytes per build, and they are never freed.
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

/// Whether code panics, which nobody hears of.
pub(crate) fn would_panic(code: impl FnOnce()) -> bool {
    EXPECTED.set(true);
    let ended = panic::catch_unwind(AssertUnwindSafe(code));
    EXPECTED.set(false);
    ended.is_err()
}

/// The message of the panic that was just caught on this thread.
pub(crate) fn take(payload: &(dyn Any + Send)) -> String {
    // Nothing was recorded if the panic was resumed instead of begun.
    LAST.try_with(RefCell::take).ok().flatten().unwrap_or_else(|| format!("panicked: {}", said(payload)))
}

fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&'static str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(with a value that is not text)")
}

/// A panic that no job answers for, such as one in a thread that a task started, would else be seen by nobody.
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
