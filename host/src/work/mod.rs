//! A job becomes an outcome: the only place that knows both Postgres and plugins.
//!
//! ```text
//! Line ── claims what will be done within 100 ms ──▶ HeldJobs ── the most urgent first ──▶ slots (one job each, on the
//!  ▲  ╲                                                                                      │       current build)
//!  │   ╲── express: the transaction stays open ──▶ Transaction ◀── completions of its jobs ────┤
//!  │                                                                                         │
//!  └── woken: new jobs, new tasks, room for more ◀── PendingCompletions ◀── completions of marked jobs ───┘
//! ```
//!
//! A line stores completions and claims the next jobs on the same trip to the database. There are two; the second one helps
//! when there is much to do. `Demand` decides how much to claim, by which lane and when; `Speed` tells how long jobs take and
//! which tasks are short enough for the express lane.
//!
//! A pool claims only while others can see that it lives: `liveness` shows it, and takes over from those that have died.

mod backoff;
mod completion;
mod conclusion;
mod crashes;
mod demand;
mod execution;
mod giving_back;
mod held;
mod identity;
mod line;
mod liveness;
mod locks;
mod missing;
mod plugin_jobs;
mod pool;
mod prepared;
mod refused;
mod registered;
mod running;
mod speed;
mod transaction;
mod unheard;
mod wakes;

pub use identity::{Mode, Stop};
pub use plugin_jobs::{JobAdder, PluginJobs};
pub use pool::Pool;
pub use prepared::PreparedPool;
