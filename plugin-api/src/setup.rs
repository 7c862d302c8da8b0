//! The plugin's state: built once per build, torn down at its end.

use std::{any::Any, future::Future, pin::Pin, sync::Arc};

use serde::de::DeserializeOwned;

use crate::error::TaskError;

/// State of a type that only the tasks know.
pub(crate) type AnyState = Arc<dyn Any + Send + Sync>;
pub(crate) type Building = Pin<Box<dyn Future<Output = Result<AnyState, TaskError>> + Send>>;
pub(crate) type TearingDown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the host tells a plugin when it starts.
#[derive(Debug)]
pub struct Setup {
    pub(crate) settings: String,
}

impl Setup {
    /// The plugin's settings, from `[plugins.NAME.settings]` in the host's `taskbay.toml`; an empty object if it has none.
    ///
    /// # Errors
    ///
    /// When the settings do not fit the type.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, TaskError> {
        serde_json::from_str(&self.settings)
            .map_err(|error| TaskError::new(format_args!("the plugin's settings do not fit: {error}")))
    }
}

/// What `state:` in `plugin!` may be: a function from [`Setup`] to a `Result`, async or plain.
#[diagnostic::on_unimplemented(
    message = "this cannot build a plugin's state",
    note = "write `async fn connect(setup: Setup) -> Result<MyState, TaskError>`, or the same as a plain `fn`"
)]
#[doc(hidden)]
pub trait StateBuilder<Marker> {
    type State: Send + Sync + 'static;
    fn build(self, setup: Setup) -> Building;
}

impl<F, R, S, E> StateBuilder<(R, S)> for F
where
    F: FnOnce(Setup) -> R + Send + 'static,
    R: Future<Output = Result<S, E>> + Send + 'static,
    S: Send + Sync + 'static,
    E: Into<TaskError>,
{
    type State = S;

    fn build(self, setup: Setup) -> Building {
        Box::pin(async move { self(setup).await.map(|state| Arc::new(state) as AnyState).map_err(Into::into) })
    }
}

impl<F, S, E> StateBuilder<Result<S, E>> for F
where
    F: FnOnce(Setup) -> Result<S, E> + Send + 'static,
    S: Send + Sync + 'static,
    E: Into<TaskError>,
{
    type State = S;

    fn build(self, setup: Setup) -> Building {
        Box::pin(async move { self(setup).map(|state| Arc::new(state) as AnyState).map_err(Into::into) })
    }
}

#[doc(hidden)]
pub fn build_state<M, F: StateBuilder<M>>(builder: F, setup: Setup) -> Building {
    builder.build(setup)
}

#[doc(hidden)]
pub fn no_state(_setup: Setup) -> Building {
    Box::pin(async { Ok(Arc::new(()) as AnyState) })
}

#[doc(hidden)]
pub fn tear_down<S, F, R>(teardown: F, state: AnyState) -> TearingDown
where
    S: Send + Sync + 'static,
    F: FnOnce(Arc<S>) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    Box::pin(async move {
        if let Ok(state) = state.downcast::<S>() {
            teardown(state).await;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Settings {
        server: String,
    }

    #[test]
    fn settings_that_do_not_fit_say_what_is_missing() {
        let setup = Setup { settings: r#"{"server":"mx"}"#.into() };
        assert_eq!(setup.settings::<Settings>().unwrap().server, "mx");
        let setup = Setup { settings: "{}".into() };
        let error = setup.settings::<Settings>().unwrap_err().to_string();
        assert!(error.contains("settings") && error.contains("server"), "{error}");
    }
}
