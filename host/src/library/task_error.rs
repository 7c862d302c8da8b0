//! Why a task of this program failed. The same as plugins have, so that code can move from one to the other.

use std::{error::Error, fmt};

use crate::plugin::{FailedItem, FailedItems, TaskEnd};

/// Any error that can be sent between threads.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What a task returns.
pub type TaskResult = Result<(), TaskError>;

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
    items: Option<Box<FailedItems>>,
}

impl TaskError {
    /// The job failed for this reason and is tried again later.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), discard: false, items: None }
    }

    /// The job failed for this reason and is never tried again: another attempt would fail the same way.
    pub fn discard(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), discard: true, items: None }
    }

    /// For a job whose payload is an array: what the results of its items, in their order, come to. Only the items that
    /// failed are tried again. One that failed by [`TaskError::discard`] is not; if no other is left, the job fails for good.
    ///
    /// ```
    /// use taskbay::{JobContext, TaskError, TaskList};
    ///
    /// let tasks = TaskList::new().task("send_digests", |addresses: Vec<String>, _: JobContext| async move {
    ///     let send = |address: String| match address.contains('@') {
    ///         true => Ok(()),
    ///         false => Err(TaskError::discard(format!("{address} is no address"))),
    ///     };
    ///     TaskError::of_items(addresses.into_iter().map(send).collect())
    /// });
    /// # let _ = tasks;
    /// ```
    pub fn of_items(results: Vec<TaskResult>) -> TaskResult {
        let items = results.len();
        let failures = results.into_iter().enumerate().filter_map(|(index, result)| Some((index, result.err()?)));
        let failures: Vec<(usize, Self)> = failures.collect();
        let mut message = format!("{} of {items} items failed:", failures.len());
        for (index, error) in &failures {
            let for_good = if error.discard { " (for good)" } else { "" };
            message.push_str(&format!("\nitem {index}{for_good}: {error}"));
        }
        let failed = failures.iter().map(|(index, error)| FailedItem { index: *index, discard: error.discard });
        match FailedItems::new(items, failed.collect()) {
            Some(items) => Err(Self { message, discard: false, items: Some(Box::new(items)) }),
            None => Ok(()),
        }
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

impl From<TaskError> for TaskEnd {
    fn from(error: TaskError) -> Self {
        let TaskError { message, discard, items } = error;
        match items {
            Some(items) => Self::PartlyFailed { items: *items, message },
            None if discard => Self::Discarded(message),
            None => Self::Failed(message),
        }
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
