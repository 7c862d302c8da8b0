//! A job becomes an outcome: the only place that knows both Postgres and plugins.
//!
//! ```text
//! Demand ── how many, by which lane ──▶ Claimer ── claims ──▶ HeldJobs ── the most urgent first ──▶ slots (one job each,
//!                                        ▲  ╲                                                       │   on the current build)
//!                                        │   ╲── express: stays open ──▶ Transaction ◀── completions ┤
//!                                        │                                                          │
//!                                        └── stores ◀── PendingCompletions ◀── completions (marked) ┘
//! ```
//!
//! A claimer stores completions and claims the next jobs on the same trip to the database. There are two; the overflow claimer
//! joins when there is much to do. `Demand` decides how much to claim, by which lane and when; `Speed` tells how long jobs take
//! and which tasks are short enough for the express lane. `conclusion` turns the outcome of an attempt into the end of its job.
//!
//! The `Pool` joins these with the name that it claims under (`Identity`) and the jobs that it has (`Running`).
//!
//! A pool claims only while others can see that it lives: `liveness` shows it, and takes over from those that have died.

mod backoff;
mod claimed_set;
mod claimer;
mod completion;
mod conclusion;
mod crashes;
mod demand;
mod execution;
mod first_session;
mod held;
mod held_job;
mod identity;
mod liveness;
mod locks;
mod missing;
mod orphaned_claims;
mod plugin_jobs;
mod pool;
mod prepared;
mod refused;
mod registered;
mod release;
mod running;
mod snapshot;
mod speed;
mod transaction;
mod wakes;

pub use identity::{Mode, Stop};
pub use plugin_jobs::{JobAdder, PluginJobs};
pub use pool::{Pool, Takeover};
pub use prepared::PreparedPool;
pub use snapshot::{LivenessLock, LivenessSnapshot, PoolSnapshot};
