//! How a task fails.

use std::{error::Error, fmt};

/// What most tasks return.
pub type TaskResult = Result<(), TaskError>;

/// Why a job failed. `?` makes one of any error, also of a string; the job is then tried again later.
///
/// ```
/// use taskbay_plugin::prelude::*;
///
/// fn read(path: &str) -> Result<String, TaskError> {
///     if path.is_empty() {
///         return Err(TaskError::discard("the payload names no file"));
///     }
///     Ok(std::fs::read_to_string(path)?)
/// }
///
/// assert_eq!(read("").unwrap_err().to_string(), "the payload names no file");
/// assert!(read("/not/there").unwrap_err().to_string().contains("No such file"));
/// ```
pub struct TaskError {
    message: String,
    discard: bool,
}

impl TaskError {
    /// An error with this message.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), discard: false }
    }

    /// An error that trying again cannot mend: the job fails for good, whatever attempts it has left.
    pub fn discard(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), discard: true }
    }

    /// Puts what was being done before the message.
    #[must_use]
    pub fn context(self, doing: impl fmt::Display) -> Self {
        Self { message: format!("{doing}: {}", self.message), ..self }
    }

    pub(crate) fn is_discard(&self) -> bool {
        self.discard
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The message is the error's and those of its causes.
impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for TaskError {
    fn from(error: E) -> Self {
        let error: Box<dyn Error + Send + Sync> = error.into();
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors repeat their cause in their own message.
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        Self { message, discard: false }
    }
}

/// What a task may return.
#[diagnostic::on_unimplemented(
    message = "a task cannot return `{Self}`",
    note = "a task returns nothing, `TaskResult`, or a `Result<(), E>` whose error can become a `TaskError`"
)]
#[doc(hidden)]
pub trait IntoTaskResult {
    fn into_task_result(self) -> TaskResult;
}

impl IntoTaskResult for () {
    fn into_task_result(self) -> TaskResult {
        Ok(())
    }
}

impl<E: Into<TaskError>> IntoTaskResult for Result<(), E> {
    fn into_task_result(self) -> TaskResult {
        self.map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("reading the page number")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn the_message_holds_the_causes() {
        let error = TaskError::from(Outer("x".parse::<u8>().unwrap_err()));
        assert_eq!(error.to_string(), "reading the page number: invalid digit found in string");
    }

    #[test]
    fn a_string_is_an_error_too() {
        fn task() -> TaskResult {
            Err("no such user")?
        }
        assert_eq!(task().unwrap_err().context("greeting").to_string(), "greeting: no such user");
    }
}
