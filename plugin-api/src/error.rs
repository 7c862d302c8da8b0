//! Why a task failed.

use std::{error::Error, fmt};

/// Any error that can be sent between threads. `?` in a task and the task's return type accept it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The result of a task.
pub type TaskResult = Result<(), TaskError>;

/// Why a task failed, as text for the job's `last_error`.
///
/// `?` converts every standard error, with its causes: `cannot open the outbox: Permission denied (os error 13)`.
/// A failed job is retried, unless the error was created by [`TaskError::discard`].
///
/// ```
/// use taskbay_plugin::prelude::*;
///
/// fn age(text: &str) -> Result<u8, TaskError> {
///     if text.is_empty() {
///         return Err(TaskError::new("no age was given"));
///     }
///     Ok(text.parse()?)
/// }
///
/// assert_eq!(age("").unwrap_err().to_string(), "no age was given");
/// assert_eq!(age("x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
#[derive(Debug)]
pub struct TaskError {
    message: String,
    discard: bool,
    items: Option<Box<FailedItems>>,
}

/// The result of a batch task: one result for each item of the payload, in the same order, or one error for all items.
///
/// Only the failed items of the payload are retried: the job's payload shrinks to them, and `last_error` names them. The
/// job's attempts and delays are those of any other job.
///
/// * An item that fails with [`TaskError::discard`] is named in `last_error` and not retried. If no other item is left, the
///   job fails for good. A job that has failed for good, for this reason or because its attempts are used up, keeps all
///   items that failed in its last attempt.
/// * Each item must have one result. If the numbers differ, or if the payload is not an array, the host cannot match results
///   to items: it logs a warning and counts the job as done.
/// * A panic, a timeout or a crash fails the whole job.
///
/// ```
/// use taskbay_plugin::prelude::*;
///
/// /// Sends the digests collected under one job key.
/// #[task]
/// async fn send_digests(addresses: Vec<String>) -> BatchResult {
///     let send = |address: String| match address.contains('@') {
///         true => Ok(()),
///         false => Err(TaskError::discard(format!("{address} is no address"))),
///     };
///     Ok(addresses.into_iter().map(send).collect())
/// }
/// # fn main() {}
/// ```
pub type BatchResult = Result<Vec<TaskResult>, TaskError>;

/// The failed items of a payload.
#[derive(Debug)]
pub(crate) struct FailedItems {
    /// The number of items.
    pub(crate) items: usize,
    /// The indexes of the failed items, and whether they failed for good.
    pub(crate) failed: Vec<(usize, bool)>,
}

impl TaskError {
    /// Fails the job for this reason; it is retried.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), discard: false, items: None }
    }

    /// Fails the job for good for this reason, because another attempt would fail in the same way.
    pub fn discard(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), discard: true, items: None }
    }

    /// Whether the job fails for good.
    pub fn is_discard(&self) -> bool {
        self.discard
    }

    /// Combines the results of a batch: an error if any of them is an error.
    pub(crate) fn of_items(results: impl ExactSizeIterator<Item = TaskResult>) -> TaskResult {
        let items = results.len();
        let failures: Vec<(usize, Self)> =
            results.enumerate().filter_map(|(index, result)| Some((index, result.err()?))).collect();
        if failures.is_empty() {
            return Ok(());
        }
        let mut message = format!("{} of {items} items failed:", failures.len());
        for (index, error) in failures.iter().take(NAMED_ITEMS) {
            let for_good = if error.discard { " (for good)" } else { "" };
            message.push_str(&format!("\nitem {index}{for_good}: {}", in_one_line(&error.message)));
        }
        if let Some(more @ 1..) = failures.len().checked_sub(NAMED_ITEMS) {
            message.push_str(&format!("\n… and {more} more"));
        }
        let failed = failures.iter().map(|(index, error)| (*index, error.discard)).collect();
        Err(Self { message, discard: false, items: Some(Box::new(FailedItems { items, failed })) })
    }

    pub(crate) fn failed_items(&self) -> Option<&FailedItems> {
        self.items.as_deref()
    }

    /// Prefixes the message with a description of the failed operation.
    fn while_trying(mut self, what: &dyn fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Converts any error; a boxed [`TaskError`] stays unchanged.
    pub(crate) fn from_any(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Boxed>() {
            Ok(boxed) => boxed.0,
            Err(error) => Self::new(with_causes(&*error)),
        }
    }
}

/// The maximum number of failed items named in a job's error.
const NAMED_ITEMS: usize = 100;
/// The maximum length of each item's message, in characters.
const LONGEST_REASON: usize = 500;

fn in_one_line(text: &str) -> String {
    let mut line: String = text.chars().take(LONGEST_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST_REASON).is_some() {
        line.push('…');
    }
    line
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self::from_any(error)
    }
}

/// `TaskError` cannot implement `Error`, because the conversion above would then overlap with `From<T> for T`.
#[derive(Debug)]
struct Boxed(TaskError);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for Boxed {}

impl From<TaskError> for BoxError {
    fn from(error: TaskError) -> Self {
        Box::new(Boxed(error))
    }
}

/// The error with its causes. Many errors include their cause in their own text; such a cause is not repeated.
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

/// Adds a description of the failed operation to an error.
///
/// ```
/// use taskbay_plugin::prelude::*;
///
/// fn read(path: &str) -> Result<String, TaskError> {
///     std::fs::read_to_string(path).or_fail(format_args!("cannot read {path}"))
/// }
///
/// let error = read("/nowhere").unwrap_err();
/// assert_eq!(error.to_string(), "cannot read /nowhere: No such file or directory (os error 2)");
/// ```
pub trait OrFail<T> {
    /// Prefixes an error with `what`. The job is retried, unless the error itself fails it for good.
    ///
    /// # Errors
    ///
    /// The error, prefixed with `what`.
    fn or_fail(self, what: impl fmt::Display) -> Result<T, TaskError>;

    /// Prefixes an error with `what`, and fails the job for good.
    ///
    /// # Errors
    ///
    /// The error, prefixed with `what`.
    fn or_discard(self, what: impl fmt::Display) -> Result<T, TaskError>;
}

impl<T, E: Into<BoxError>> OrFail<T> for Result<T, E> {
    fn or_fail(self, what: impl fmt::Display) -> Result<T, TaskError> {
        self.map_err(|error| TaskError::from_any(error).while_trying(&what))
    }

    fn or_discard(self, what: impl fmt::Display) -> Result<T, TaskError> {
        self.or_fail(what).map_err(|error| TaskError { discard: true, items: None, ..error })
    }
}

/// Returns an error from the task: `bail!("no account {name}")` is `return Err(TaskError::new(format!("no account {name}")).into())`.
#[macro_export]
macro_rules! bail {
    ($($message:tt)+) => {
        return ::core::result::Result::Err(::core::convert::Into::into($crate::TaskError::new(::core::format_args!($($message)+))))
    };
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
        assert!(!error.is_discard());
    }

    #[test]
    fn a_discard_stays_one_inside_a_box_and_under_an_explanation() {
        let boxed: BoxError = TaskError::discard("no such account").into();
        let error = Err::<(), _>(boxed).or_fail("cannot book").unwrap_err();
        assert!(error.is_discard());
        assert_eq!(error.to_string(), "cannot book: no such account");
    }

    #[test]
    fn the_message_of_a_batch_stays_readable_however_many_items_fail() {
        let failed = |text: &str| Err(TaskError::new(text));
        let error = TaskError::of_items([Ok(()), failed("no\nroute")].into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "1 of 2 items failed:\nitem 1: no route");
        let many: Vec<TaskResult> = (0..10_000).map(|_| failed(&"ä".repeat(5_000))).collect();
        let text = TaskError::of_items(many.into_iter()).unwrap_err().to_string();
        assert!(text.len() < 110_000 && text.lines().count() == 102, "{}", text.len());
        assert!(text.ends_with("\n… and 9900 more"));
    }

    #[test]
    fn a_plain_text_can_be_the_error() {
        let error = Err::<(), _>("too late").or_discard("cannot book").unwrap_err();
        assert!(error.is_discard());
        assert_eq!(error.to_string(), "cannot book: too late");
    }
}
