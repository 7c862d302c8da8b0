//! A build of a plugin, and the FFI boundary to its code.
//!
//! A sealed [`Image`] of a plugin file is launched as a [`Generation`], which runs jobs through a runner in a child process
//! or in this process. An [`ExecutableFile`] is a generation too, with a process for each job. This module must not know
//! Postgres.

// A build and its description.
mod file_key;
mod image;
mod job;
mod launch_error;
mod manifest;
mod settings;
mod stop_signal;
// From launch to the last job.
mod availability;
mod bounds;
mod execution;
mod generation;
mod running_jobs;
// The runner in a child process: the host's side, then the child's.
mod alone;
mod child;
mod child_main;
mod child_outbox;
mod child_socket;
mod connection;
mod frames;
mod host_outbox;
mod host_socket;
mod output;
mod process;
mod restarts;
mod spawner;
// The runner of executable files.
mod executable;
mod executable_run;
mod lease;
mod pre_exec;
// The runner in the host's process.
mod in_process;
// The runner for tasks compiled into this program.
mod built_in;
// The FFI boundary; the child's side uses it too.
mod calls;
mod host_calls;
mod host_table;
mod libc_calls;
mod loader;
// The entry points of the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzed;

pub use crate::build_id::BuildId;
pub use availability::Availability;
pub use built_in::{BuiltInTask, TaskCode, TaskEnd, TaskRun};
pub use child_main::plugin_child;
pub use executable::ExecutableFile;
pub(crate) use executable::{executable_manifest, interpreter_of};
pub use file_key::FileKey;
pub use generation::Generation;
pub use host_calls::{AddJob, HostServices};
pub use image::Image;
pub use job::{Accepted, Cancel, FailedItem, FailedItems, FailureKind, JobInput, Outcome};
pub use launch_error::LaunchError;
pub use manifest::{MAX_NAME_CHARS, ManifestInfo, TaskSpec};
pub use process::probe;
pub use settings::{DatabaseAccess, Isolation, PluginSettings};
pub use stop_signal::StopSignal;
