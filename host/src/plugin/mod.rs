//! One build of a plugin, and the border to its code.
//!
//! A sealed [`Image`] of a plugin file is launched as a [`Generation`], which runs jobs through a runner: a child process
//! or this process. Nothing here knows that Postgres exists.

mod generation;
mod image;

pub use generation::{
    AddJob, Availability, FailureKind, Generation, HostServices, Isolation, JobInput, LaunchError, Outcome,
    PluginSettings, TaskSpec,
};
pub use image::{BuildId, Image};
