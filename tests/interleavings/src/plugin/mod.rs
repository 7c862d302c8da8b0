//! A build and the line to its process: the host's own files, and what they need from their neighbours.

#[path = "../../../../host/src/plugin/calls.rs"]
mod calls;
#[path = "../../../../host/src/plugin/child_outbox.rs"]
mod child_outbox;
#[path = "../../../../host/src/plugin/host_outbox.rs"]
mod host_outbox;
#[path = "../../../../host/src/plugin/running_jobs.rs"]
mod running_jobs;
#[path = "../../../../host/src/plugin/stop_signal.rs"]
mod stop_signal;
// What stands in for the rest.
mod child;
mod frames;
mod generation;
mod libc_calls;
mod line;
mod sockets;

pub use child::Child;
pub use generation::Generation;
pub(crate) use generation::{Availability, TaskSpec};
pub use line::{JobEnd, Line, Stop};
pub use sockets::{ChildSocket, HostSocket, socket_pair};
use sockets::{child_socket, host_socket};
