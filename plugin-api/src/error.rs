//! Why a task failed.

use std::{error::Error, fmt};

/// Any error that can be sent between threads; what `?` inside a task and the return type of a task accept.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What a task returns.
pub type TaskResult = Result<(), TaskError>;

/// Why a task failed, as text for the job's `last_error`.
///
/// Every standard error becomes one by `?`, with its causes: `cannot open the outbox: Permission denied (os error 13)`.
/// A job that failed is tried again later, unless the error is made by [`TaskError::discard`].
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

/// What a batch task returns: a result for each item of the payload, in the order of the payload, or one error for all.
///
/// Of a job whose payload is an array, only the items that failed are tried again: the job's payload shrinks to them, its
/// attempts and waiting times are those of any job, and its `last_error` names them.
///
/// * An item that fails by [`TaskError::discard`] is named and not tried again. If no other is left, the job fails for good.
///   A job that has failed for good, for this reason or for want of attempts, keeps all items that failed in its last
///   attempt.
/// * There is one result for each item. If there are more or fewer, or if the payload is no array, the host cannot tell
///   which belongs to which: it writes a warning and takes the job for done.
/// * A panic, a timeout or a crash fails the job as a whole.
///
/// ```
/// use taskbay_plugin::prelude::*;
///
/// /// Sends what has gathered under one job key.
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

/// Which items of a payload failed.
#[derive(Debug)]
pub(crate) struct FailedItems {
    /// How many items there were.
    pub(crate) items: usize,
    /// The indexes of those that failed, and whether for good.
    pub(crate) failed: Vec<(usize, bool)>,
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

    /// Whether the job fails for good.
    pub fn is_discard(&self) -> bool {
        self.discard
    }

    /// What the results of a batch come to: an error if any of them is one.
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

    /// Puts what was tried in front of the reason.
    fn while_trying(mut self, what: &dyn fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Takes any error, and keeps a [`TaskError`] that travelled inside a box as it was.
    pub(crate) fn from_any(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Boxed>() {
            Ok(boxed) => boxed.0,
            Err(error) => Self::new(with_causes(&*error)),
        }
    }
}

/// So many failed items are named in the error of their job.
const NAMED_ITEMS: usize = 100;
/// So much is kept of what each has to say, in characters.
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

/// `TaskError` cannot be an `Error` itself, because then the conversion above would overlap with `From<T> for T`.
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

/// Says what was tried when something failed.
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
    /// On an error, fails with `what` in front of its text. The job is tried again, unless the error says otherwise.
    ///
    /// # Errors
    ///
    /// The error, with `what` in front.
    fn or_fail(self, what: impl fmt::Display) -> Result<T, TaskError>;

    /// As [`or_fail`](OrFail::or_fail), but the job fails for good.
    ///
    /// # Errors
    ///
    /// The error, with `what` in front.
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

/// Ends the task with an error: `bail!("no account {name}")` is `return Err(TaskError::new(format!("no account {name}")).into())`.
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
