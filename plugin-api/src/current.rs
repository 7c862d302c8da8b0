//! The current call of each thread; it links log lines and panics to their job.

use std::{
    cell::RefCell,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    TaskError,
    host_link::{Ended, HostLink},
    job::Call,
    panics,
};

/// The current call of a thread.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub(crate) call: u64,
    pub(crate) link: Arc<dyn HostLink>,
    /// Whether a panic becomes the outcome of the call; false in futures spawned by a task.
    pub(crate) owns_panics: bool,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Gives access to the current call of this thread.
pub(crate) fn with<R>(read: impl FnOnce(Option<&Current>) -> R) -> R {
    // Destructors of thread-local variables may still write log lines.
    let current = CURRENT.try_with(|current| current.borrow().clone()).ok().flatten();
    read(current.as_ref())
}

/// Sets the thread's current call until the guard is dropped.
#[must_use]
pub(crate) fn enter(current: Current) -> Entered {
    Entered { previous: CURRENT.replace(Some(current)) }
}

/// Restores the thread's previous call when dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    previous: Option<Current>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.previous.take());
    }
}

impl Entered {
    /// Restores the previous call and returns the one set in the meantime.
    fn leave(self) -> Option<Current> {
        CURRENT.take()
    }
}

/// Runs code for a call; a panic becomes the outcome.
pub(crate) fn guard(current: Current, code: impl FnOnce() -> Ended) -> Ended {
    let _entered = enter(current);
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|payload| Ended::Panicked(panics::take(&*payload)))
}

/// A future that sets the current call while it is polled or dropped. A panic becomes the outcome.
pub(crate) struct Guarded {
    /// Moved to the polling thread during a poll.
    current: Option<Current>,
    call: Arc<Call>,
    future: Option<TaskFuture>,
}

/// The run of an async task.
pub(crate) type TaskFuture = Pin<Box<dyn Future<Output = Result<(), TaskError>> + Send>>;

impl Guarded {
    pub(crate) fn new(call: &Arc<Call>, future: TaskFuture) -> Self {
        Self { current: Some(call.current(true)), call: Arc::clone(call), future: Some(future) }
    }

    /// The author's destructors may panic too, so they run with the current call set.
    fn discard(&mut self) -> Option<Ended> {
        let future = self.future.take()?;
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(future)));
        dropped.err().map(|payload| Ended::Panicked(panics::take(&*payload)))
    }
}

impl Future for Guarded {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = &mut *self;
        let Some(future) = &mut this.future else { return Poll::Pending };
        let Some(current) = this.current.take() else { return Poll::Pending };
        let entered = enter(current);
        this.call.turn();
        let ended = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {
                this.call.turn();
                this.current = entered.leave();
                return Poll::Pending;
            }
            Ok(Poll::Ready(result)) => result.into(),
            Err(payload) => Ended::Panicked(panics::take(&*payload)),
        };
        let dropped = this.discard();
        this.call.turn();
        Poll::Ready(match ended {
            Ended::Panicked(_) => ended,
            ended => dropped.unwrap_or(ended),
        })
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(current) = self.current.take() {
            let _entered = enter(current);
            self.discard();
        }
    }
}

/// A future that sets the current call while it is polled; its panics are not caught.
pub(crate) struct Scoped<F> {
    current: Current,
    future: Pin<Box<F>>,
}

impl<F: Future> Scoped<F> {
    pub(crate) fn new(current: Current, future: F) -> Self {
        Self { current, future: Box::pin(future) }
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = enter(self.current.clone());
        self.future.as_mut().poll(cx)
    }
}
