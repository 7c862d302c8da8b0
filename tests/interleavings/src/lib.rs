//! Code of the host whose threads meet, compiled with locks, threads and a clock that a checker drives: it tries interleavings
//! that a machine would hardly ever come to. What it needs from its neighbours is what stands beside it here.

/// The file is the host's own.
#[path = "../../../host/src/plugin/child_outbox.rs"]
#[allow(dead_code, unreachable_pub, reason = "the host uses what the tests do not")]
mod child_outbox;
mod child_socket;
mod frames;
mod libc_calls;
mod outbox;
mod sync;
pub mod task_map;

pub use child_socket::ChildSocket;
pub use outbox::Child;
