//! Control over a host from outside.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::facts::Facts;
use crate::{parts::Parts, tasks::FolderHandle, work::Stop};

/// Signals from outside.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Ends the host.
    pub stop: Stop,
    /// Given when the database is prepared and the plugins are loaded.
    pub ready: CancellationToken,
    /// Lists the tasks folder now.
    pub rescan: Arc<Notify>,
    /// The parts of the host that is controlled, of which there is one.
    pub(crate) parts: Parts,
    /// Asks the tasks folder what it has come to, and has it go by other settings.
    pub folder: FolderHandle,
    /// What the host shows of itself: see [`Control::host`].
    pub(super) facts: Arc<Facts>,
}
