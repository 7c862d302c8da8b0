//! The flags that a pool does not claim, and its clock.

use std::{borrow::Cow, fmt, future::Future, pin::Pin, sync::Arc, time::SystemTime};

/// Jobs with any of these flags are left to other hosts.
///
/// ```
/// use taskbay::config::ForbiddenFlags;
///
/// let never = ForbiddenFlags::from(vec!["gpu".to_owned()]);
/// // Called before each claim, for example to exclude an overloaded service.
/// let at_times = ForbiddenFlags::asked(|| async { vec!["api:example.com".to_owned()] });
/// # let _ = (never, at_times);
/// ```
#[derive(Clone)]
pub enum ForbiddenFlags {
    /// Always the same.
    Fixed(Vec<String>),
    /// Requested before each claim.
    Asked(Arc<Ask>),
}

/// Returns the currently forbidden flags.
pub type Ask = dyn Fn() -> Pin<Box<dyn Future<Output = Vec<String>> + Send>> + Send + Sync;

impl ForbiddenFlags {
    /// Flags that may change between claims. Claims wait for the answer.
    pub fn asked<F, A>(ask: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Vec<String>> + Send + 'static,
    {
        Self::Asked(Arc::new(move || Box::pin(ask())))
    }

    pub(crate) async fn at_this_moment(&self) -> Cow<'_, [String]> {
        match self {
            Self::Fixed(flags) => Cow::Borrowed(flags),
            Self::Asked(ask) => Cow::Owned(ask().await),
        }
    }
}

impl Default for ForbiddenFlags {
    fn default() -> Self {
        Self::Fixed(Vec::new())
    }
}

impl From<Vec<String>> for ForbiddenFlags {
    fn from(flags: Vec<String>) -> Self {
        Self::Fixed(flags)
    }
}

impl fmt::Debug for ForbiddenFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(flags) => flags.fmt(f),
            Self::Asked(_) => f.write_str("asked for before each claim"),
        }
    }
}

/// This process's clock: the system's, unless a test or simulation replaces it.
#[derive(Clone)]
pub struct TimeSource(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl TimeSource {
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl Default for TimeSource {
    fn default() -> Self {
        Self::new(SystemTime::now)
    }
}

impl fmt::Debug for TimeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimeSource")
    }
}
