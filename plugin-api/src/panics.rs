//! A panic becomes the message and the place that its job fails with.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    pin::pin,
    sync::PoisonError,
};

use crate::dispatch;

/// Notes each panic with its place, which the catcher cannot know any more.
///
/// This is the hook of the plugin's own copy of the standard library; the host has another. It looks up no symbols: that
/// would map tens of megabytes for each build.
pub(crate) fn install_hook() {
    panic::set_hook(Box::new(|info| {
        let text = describe(info);
        match dispatch::current_call() {
            Some(call) => *call.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(text),
            // A thread that a task started: its job may go on, but the log shall know.
            None => tracing::error!("{text}"),
        }
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = message(info.payload());
    match info.location() {
        Some(place) => format!("panicked at {}:{}:{}: {message}", place.file(), place.line(), place.column()),
        None => format!("panicked: {message}"),
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(the panic's value is not text)")
}

/// Runs something; a panic becomes its message. What was unwound is not used again, so its state does not matter.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(run)).map_err(|payload| format!("panicked: {}", message(&*payload)))
}

/// The same for a future.
pub(crate) async fn catch_future<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    poll_fn(|context| match catch(|| future.as_mut().poll(context)) {
        Ok(poll) => poll.map(Ok),
        Err(panicked) => std::task::Poll::Ready(Err(panicked)),
    })
    .await
}
