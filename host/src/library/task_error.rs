//! Why a task of this program failed. The same as plugins have, so that code can move from one to the other.

use std::{error::Error, fmt};

use crate::plugin::{FailedItem, FailedItems, TaskEnd};

/// Any error that can be sent between threads.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What a task returns.
pub type TaskResult = Result<(), TaskError>;

/// What a batch task returns: a result for each item of the payload, in the order of the payload, or one error for all.
pub type BatchResult = Result<Vec<TaskResult>, TaskError>;

/// Why a task failed, as text for the job's `last_error`.
///
/// `?` makes one of every standard error, with its causes: `cannot open the outbox: Permission denied (os error 13)`. So
/// does it of a text, of a boxed error, and of `anyhow::Error`. A job that failed is tried again later, unless the error was
/// made by [`TaskError::discard`].
///
/// ```
/// use taskbay::TaskError;
///
/// fn age(text: &str) -> Result<u8, TaskError> {
///     if text.is_empty() {
///         return Err(TaskError::discard("no age was given"));
///     }
///     Ok(text.parse()?)
/// }
///
/// assert!(age("").unwrap_err().is_discard());
/// assert_eq!(age("x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
#[derive(Debug)]
pub struct TaskError {
    message: String,
    discard: bool,
}

impl TaskError {
    /// The job failed for this reason and is tried again later.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), discard: false }
    }

    /// The job failed for this reason and is never tried again: another attempt would fail the same way.
    pub fn discard(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), discard: true }
    }

    /// Whether the job fails for good.
    pub fn is_discard(&self) -> bool {
        self.discard
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Into<BoxError>> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self::new(with_causes(&*error.into()))
    }
}

/// What the results of a batch come to.
pub(super) fn end_of_batch(results: BatchResult) -> TaskEnd {
    let results = match results {
        Ok(results) => results,
        Err(error) => return error.into(),
    };
    let items = results.len();
    let mut failed = Vec::new();
    let mut lines = String::new();
    for (index, error) in results.into_iter().enumerate().filter_map(|(index, result)| Some((index, result.err()?))) {
        let for_good = if error.discard { " (for good)" } else { "" };
        lines.push_str(&format!("\nitem {index}{for_good}: {error}"));
        failed.push(FailedItem { index, discard: error.discard });
    }
    let message = format!("{} of {items} items failed:{lines}", failed.len());
    match FailedItems::new(items, failed) {
        Some(items) => TaskEnd::PartlyFailed { items, message },
        None => TaskEnd::Done,
    }
}

impl From<TaskError> for TaskEnd {
    fn from(error: TaskError) -> Self {
        if error.discard { Self::Discarded(error.message) } else { Self::Failed(error.message) }
    }
}

/// Many errors repeat their cause in their own text; such a cause is not said twice.
fn with_causes(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = error.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("cannot send")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn the_causes_of_an_error_are_part_of_the_message() {
        let error = TaskError::from(Outer(std::io::Error::other("no route")));
        assert_eq!(error.to_string(), "cannot send: no route");
    }

    #[test]
    fn texts_and_boxes_are_errors_too() {
        assert_eq!(TaskError::from("too late").to_string(), "too late");
        let boxed: BoxError = Box::new(Outer(std::io::Error::other("no route")));
        assert_eq!(TaskError::from(boxed).to_string(), "cannot send: no route");
    }
}
