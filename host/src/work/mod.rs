//! A job becomes an outcome: the only place that knows both Postgres and plugins.
//!
//! ```text
//! Fetcher ── claims as many jobs as there are free slots ──▶ Execution (one task per job, on the current build)
//!    ▲                                                            │ verdict
//!    └── nudged: new jobs, new tasks, a queue became free ◀── Completer ── stores verdicts, many per statement
//! ```

mod backoff;
mod conditions;
mod execution;
mod express_batch;
mod held;
mod line;
mod locks;
mod plugin_jobs;
mod pool;
mod refetching;
mod registered;
mod speed;
mod verdict;

pub use conditions::{Ask, ForbiddenFlags, TimeSource};
pub use plugin_jobs::{JobAdder, PluginJobs};
pub use pool::{Mode, Pool, Stop};
