//! Code of the host whose threads meet, compiled with locks, threads and a clock that a checker drives: it tries interleavings
//! that a machine would hardly ever come to. What it needs from its neighbours is what stands beside it here.

#![allow(dead_code, unreachable_pub, reason = "the host's files have more than the tests use")]

mod events;
mod plugin;
mod sync;
mod tasks;

pub use plugin::{Child, ChildSocket, Generation, HostSocket, JobEnd, Line, Stop, socket_pair};
pub use tasks::Folder;
