//! The input of a plugin's state function.

use serde::de::DeserializeOwned;

use crate::{TaskError, payload};

/// The argument of the plugin's `state:` function, which runs once for each build of the plugin.
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

    /// The plugin's section of the host's settings; an empty object if the section is missing. Give fields a
    /// `#[serde(default)]` where a sensible default exists.
    ///
    /// # Errors
    ///
    /// When the settings do not match the type; the message names the setting. A start-up that fails with this error is
    /// retried only after the settings have changed.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, TaskError> {
        payload::read(&self.settings).map_err(|reason| {
            // The position in the JSON would mislead, because the host generates it from its settings file.
            let reason = reason.rsplit_once(" at line ").map_or(&*reason, |(reason, _)| reason);
            // A retry would use the same settings.
            TaskError::discard(format!("the settings of the plugin `{}` do not fit: {reason}", self.plugin))
        })
    }
}
