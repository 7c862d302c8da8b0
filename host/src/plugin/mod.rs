//! One build of a plugin, and the border to its code.
//!
//! A sealed [`Image`] of a plugin file is launched as a [`Generation`], which runs jobs through a runner: a child process
//! or this process. Nothing here knows that Postgres exists.

mod generation;
mod host_calls;
mod image;
mod job;
mod launch_error;
mod manifest;
mod settings;

pub use generation::{Availability, Generation, probe};
pub use host_calls::{AddJob, HostServices};
pub use image::{BuildId, Image};
pub use job::{FailureKind, JobInput, Outcome};
pub use launch_error::LaunchError;
pub use manifest::{ManifestInfo, TaskSpec};
pub use settings::{Isolation, PluginSettings};
