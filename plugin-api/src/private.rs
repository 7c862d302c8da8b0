//! What `#[task]` and `plugin!` write code against. No part of the interface for people.

use std::{future::Future, sync::Arc};

pub use abi_stable::library::LibHeader;
use serde::de::DeserializeOwned;
use taskbay_abi::Str;
pub use taskbay_abi::{Header, TaskDef};
pub use taskbay_plugin_macros::plugin_header;

use crate::{Context, TaskError, error::BoxError, payload};
pub use crate::{
    border::{Exported, header, root_module},
    dispatcher::{Built, Definition, Dispatcher, JobCall, LocalFuture, Work},
};

/// What `#[task]` makes of a function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task",
    label = "put `#[task]` on this function",
    note = "`plugin!` takes functions with the attribute `#[task]`"
)]
pub trait Task {
    const NAME: &'static str;
    const DESCRIPTION: Option<&'static str>;
    const TIMEOUT_MS: u64;
    const MAX_ATTEMPTS: u32;
    const SCHEDULES: Option<&'static str>;
    fn run(job: JobCall) -> Work;
}

/// Whether a task can run in a plugin whose state is `State`.
#[diagnostic::on_unimplemented(
    message = "the task `{Self}` asks for another state than the `{State}` that this plugin has",
    label = "its `Context<…>` names another type than `{State}`",
    note = "the state of a plugin is what its `state:` function returns, and `()` without one"
)]
pub trait Fits<State> {}

/// Fails to compile for a task that wants a state which the plugin does not have.
pub const fn fits<T: Fits<State>, State>() {}

/// As [`fits`], for a state whose type nobody has written down.
#[derive(Debug)]
pub struct StateOf<'a, State>(pub &'a State);

impl<State> StateOf<'_, State> {
    pub fn fits<T: Fits<State>>(&self) {}
}

pub const fn task_def<T: Task>() -> TaskDef {
    TaskDef {
        size: size_of::<TaskDef>() as u32,
        max_attempts: T::MAX_ATTEMPTS,
        timeout_ms: T::TIMEOUT_MS,
        name: Str::new(T::NAME),
        description: Str::from_option(T::DESCRIPTION),
        schedules: Str::from_option(T::SCHEDULES),
    }
}

/// Whether two tasks have the same name.
pub const fn same_name<A: Task, B: Task>() -> bool {
    same(A::NAME.as_bytes(), B::NAME.as_bytes())
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    a.len() == b.len()
}

impl JobCall {
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, TaskError> {
        payload::read(&self.call.job.payload).map_err(|reason| {
            TaskError::new(format!("the payload does not fit the task `{}`: {reason}", self.call.task))
        })
    }

    pub fn context(&self) -> Context {
        // Nearly always the plugin has no state either, and then there is such a thing already.
        let nothing = Arc::clone(&self.state).downcast::<()>().unwrap_or_default();
        Context::new(Arc::clone(&self.call), nothing)
    }

    pub fn context_with<S: Send + Sync + 'static>(&self) -> Result<Context<S>, TaskError> {
        match Arc::clone(&self.state).downcast::<S>() {
            Ok(state) => Ok(Context::new(Arc::clone(&self.call), state)),
            // `Fits` rules this out at compile time.
            Err(_) => Err(TaskError::new("the plugin has a state of another type")),
        }
    }
}

impl Work {
    pub fn from_async<F>(future: F) -> Self
    where
        F: Future<Output = Result<(), TaskError>> + Send + 'static,
    {
        Self::Async(Box::pin(future))
    }

    pub fn from_plain(code: impl FnOnce() -> Result<(), TaskError> + Send + 'static) -> Self {
        Self::Blocking(Box::new(code))
    }
}

/// What a task may return.
#[diagnostic::on_unimplemented(
    message = "a task cannot return `{Self}`",
    label = "not a result of a task",
    note = "return `TaskResult`, another `Result` without a value whose error is a standard error or text, or nothing",
    note = "a task that works an array item by item returns `BatchResult`"
)]
pub trait TaskReturn {
    fn into_result(self) -> Result<(), TaskError>;
}

impl TaskReturn for () {
    fn into_result(self) -> Result<(), TaskError> {
        Ok(self)
    }
}

impl<T: TaskReturn, E: Into<BoxError>> TaskReturn for Result<T, E> {
    fn into_result(self) -> Result<(), TaskError> {
        self.map_err(TaskError::from_any)?.into_result()
    }
}

/// One result for each item of the payload.
impl<T, E: Into<BoxError>> TaskReturn for Vec<Result<T, E>> {
    fn into_result(self) -> Result<(), TaskError> {
        TaskError::of_items(self.into_iter().map(|result| result.map(drop).map_err(TaskError::from_any)))
    }
}

/// Builds nothing: the state of a plugin without `state:`.
pub fn no_state(_: crate::Setup) -> LocalFuture<Result<Built, TaskError>> {
    let built = Built { state: Arc::new(()), teardown: Box::new(|| Box::pin(std::future::ready(Ok(())))) };
    Box::pin(std::future::ready(Ok(built)))
}

/// What a `state:` function returned: a result if it is plain, a future of one if it is async. Method lookup finds the
/// inherent method first, which is how one call in `plugin!` serves both.
#[derive(Debug)]
pub struct Returned<T>(pub T);

impl<S, E: Into<BoxError>> Returned<Result<S, E>> {
    pub async fn state(self) -> Result<S, TaskError> {
        self.0.map_err(TaskError::from_any)
    }
}

/// The async half of [`Returned::state`].
pub trait ReturnedLater<T> {
    fn state(self) -> impl Future<Output = Result<T::State, TaskError>>
    where
        T: StateLater;
}

impl<T> ReturnedLater<T> for Returned<T> {
    fn state(self) -> impl Future<Output = Result<T::State, TaskError>>
    where
        T: StateLater,
    {
        self.0.into_state()
    }
}

#[diagnostic::on_unimplemented(
    message = "a plugin's `state:` function cannot return `{Self}`",
    label = "returns `{Self}`",
    note = "it takes a `&Setup` and returns a `Result` with the state; it may be `async`"
)]
pub trait StateLater {
    type State;
    fn into_state(self) -> impl Future<Output = Result<Self::State, TaskError>>;
}

impl<F: Future<Output = Result<S, E>>, S, E: Into<BoxError>> StateLater for F {
    type State = S;
    async fn into_state(self) -> Result<S, TaskError> {
        self.await.map_err(TaskError::from_any)
    }
}

/// What a `teardown:` function returned; see [`Returned`].
#[derive(Debug)]
pub struct TornDown<T>(pub T);

impl TornDown<()> {
    pub async fn result(self) -> Result<(), TaskError> {
        Ok(())
    }
}

impl<T, E: Into<BoxError>> TornDown<Result<T, E>> {
    pub async fn result(self) -> Result<(), TaskError> {
        self.0.map(drop).map_err(TaskError::from_any)
    }
}

/// The async half of [`TornDown::result`].
pub trait TornDownLater<T> {
    fn result(self) -> impl Future<Output = Result<(), TaskError>>
    where
        T: TeardownLater;
}

impl<T> TornDownLater<T> for TornDown<T> {
    fn result(self) -> impl Future<Output = Result<(), TaskError>>
    where
        T: TeardownLater,
    {
        self.0.into_end()
    }
}

#[diagnostic::on_unimplemented(
    message = "a plugin's `teardown:` function cannot return `{Self}`",
    label = "returns `{Self}`",
    note = "it takes a reference to the state and returns nothing or a `Result`; it may be `async`"
)]
pub trait TeardownLater {
    fn into_end(self) -> impl Future<Output = Result<(), TaskError>>;
}

impl<F: Future<Output = R>, R: TaskReturn> TeardownLater for F {
    async fn into_end(self) -> Result<(), TaskError> {
        self.await.into_result()
    }
}
