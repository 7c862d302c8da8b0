//! What a plugin has at hand while it builds its state.

use serde::de::DeserializeOwned;

use crate::{TaskError, payload};

/// Handed to the plugin's `state:` function, once per build of the plugin.
#[derive(Debug, Clone)]
pub struct Setup {
    pub(crate) plugin: &'static str,
    pub(crate) settings: String,
}

impl Setup {
    /// The name of the plugin's crate.
    pub fn plugin(&self) -> &'static str {
        self.plugin
    }

    /// The plugin's section of the host's settings. It is an empty object if the section is missing, so give fields a
    /// `#[serde(default)]` where there is a good one.
    ///
    /// # Errors
    ///
    /// When the settings do not fit the type; the message names the setting. A start-up that fails with this error is not tried
    /// again before the settings change.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, TaskError> {
        payload::read(&self.settings).map_err(|reason| {
            // A place in the JSON that the host makes of its file would only mislead.
            let reason = reason.rsplit_once(" at line ").map_or(&*reason, |(reason, _)| reason);
            // Another try would meet the same settings.
            TaskError::discard(format!("the settings of the plugin `{}` do not fit: {reason}", self.plugin))
        })
    }
}
