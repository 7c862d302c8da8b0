//! Plugins that must not compile. What can be seen without types is tested in the crate of the macros.

/// A task that wants a state in a plugin without one.
///
/// ```compile_fail,E0277
/// use taskbay_plugin::prelude::*;
/// #[task]
/// async fn charge(ctx: Context<String>) {}
/// plugin!(charge);
/// # fn main() {}
/// ```
struct StateOfAPluginWithout;

/// A task that wants another state than its plugin has.
///
/// ```compile_fail,E0277
/// use taskbay_plugin::prelude::*;
/// #[task]
/// async fn charge(ctx: Context<String>) {}
/// fn open(_: &Setup) -> Result<u32, TaskError> { Ok(7) }
/// plugin! { state: open, tasks: [charge] }
/// # fn main() {}
/// ```
struct AnotherState;

/// A state function that returns no result.
///
/// ```compile_fail,E0277
/// use taskbay_plugin::prelude::*;
/// #[task]
/// async fn charge(ctx: Context<u32>) {}
/// fn open(_: &Setup) -> u32 { 7 }
/// plugin! { state: open, tasks: [charge] }
/// # fn main() {}
/// ```
struct StateWithoutResult;

/// Two tasks of one name.
///
/// ```compile_fail,E0080
/// use taskbay_plugin::prelude::*;
/// #[task]
/// async fn charge() {}
/// #[task(name = "charge")]
/// async fn charge_again() {}
/// plugin!(charge, charge_again);
/// # fn main() {}
/// ```
struct TwoOfOneName;

/// A function without the attribute.
///
/// ```compile_fail,E0573
/// use taskbay_plugin::prelude::*;
/// async fn charge() {}
/// plugin!(charge);
/// # fn main() {}
/// ```
struct NoTask;

/// A payload that cannot be read.
///
/// ```compile_fail,E0277
/// use taskbay_plugin::prelude::*;
/// struct Charge;
/// #[task]
/// async fn charge(charge: Charge) {}
/// # fn main() {}
/// ```
struct PayloadWithoutDeserialize;

/// A result that means nothing.
///
/// ```compile_fail,E0277
/// use taskbay_plugin::prelude::*;
/// #[task]
/// async fn charge() -> u32 { 7 }
/// # fn main() {}
/// ```
struct ReturnsANumber;

/// A batch of something that is no result.
///
/// ```compile_fail,E0277
/// use taskbay_plugin::prelude::*;
/// #[task]
/// fn charge(accounts: Vec<u32>) -> Vec<u32> {
///     accounts.into_iter().map(|account| account + 1).collect()
/// }
/// # fn main() {}
/// ```
struct BatchOfNumbers;

/// A batch whose first failure would be the end of it.
///
/// ```compile_fail,E0277
/// use taskbay_plugin::prelude::*;
/// #[task]
/// fn charge(accounts: Vec<u32>) -> BatchResult {
///     accounts.into_iter().map(|_| TaskResult::Ok(())).collect()
/// }
/// # fn main() {}
/// ```
struct BatchThatStops;

/// A schedule that never is.
///
/// ```compile_fail
/// use taskbay_plugin::prelude::*;
/// #[task(schedule = "0 25 * * *")]
/// async fn charge() {}
/// # fn main() {}
/// ```
struct ScheduleAtNoHour;

/// The same without the mistake compiles, which is what makes the tests above mean something.
///
/// ```
/// use taskbay_plugin::prelude::*;
/// #[derive(Deserialize)]
/// struct Charge;
/// #[task]
/// async fn charge(ctx: Context<u32>, charge: Charge) -> Result<(), std::fmt::Error> { Ok(()) }
/// #[task(name = "charge-again", schedule = "0 23 * * *")]
/// async fn charge_again(ctx: Context) {}
/// #[task]
/// fn charge_all(accounts: Vec<u32>) -> BatchResult {
///     Ok(accounts.into_iter().map(|_| Ok(())).collect())
/// }
/// fn open(_: &Setup) -> Result<u32, TaskError> { Ok(7) }
/// plugin! { state: open, tasks: [charge, charge_again, charge_all] }
/// # fn main() {}
/// ```
struct NoMistake;
