//! Plugins that must not compile. Errors that need no type information are tested in the macro crate.

/// A task that takes a state in a plugin without one.
///
/// ```compile_fail,E0277
/// use taskbay_plugin::prelude::*;
/// #[task]
/// async fn charge(ctx: Context<String>) {}
/// plugin!(charge);
/// # fn main() {}
/// ```
struct StateOfAPluginWithout;

/// A task that takes a state of another type than its plugin's.
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

/// Two tasks with the same name.
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

/// A payload that does not implement `Deserialize`.
///
/// ```compile_fail,E0277
/// use taskbay_plugin::prelude::*;
/// struct Charge;
/// #[task]
/// async fn charge(charge: Charge) {}
/// # fn main() {}
/// ```
struct PayloadWithoutDeserialize;

/// A return type that is not a result.
///
/// ```compile_fail,E0277
/// use taskbay_plugin::prelude::*;
/// #[task]
/// async fn charge() -> u32 { 7 }
/// # fn main() {}
/// ```
struct ReturnsANumber;

/// A batch of values that are not results.
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

/// A batch that would stop at its first failure.
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

/// A schedule that is never due.
///
/// ```compile_fail
/// use taskbay_plugin::prelude::*;
/// #[task(schedule = "0 25 * * *")]
/// async fn charge() {}
/// # fn main() {}
/// ```
struct ScheduleAtNoHour;

/// The same code without the mistakes compiles; so each test above fails for its own mistake.
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
