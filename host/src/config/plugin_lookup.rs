//! The settings of each plugin, with their places for messages.

use std::collections::BTreeMap;

use super::{
    Origin,
    setting::{PLUGINS, path_of},
    value::bare,
};
use crate::plugin::PluginSettings;

/// The settings of each plugin.
#[derive(Debug, Clone, Default)]
pub struct PluginLookup {
    /// The settings of a plugin without a section of its own.
    pub defaults: PluginSettings,
    /// By the plugin's name, which is its file's name without `lib` and `.so`.
    pub by_name: BTreeMap<String, PluginSettings>,
    /// The origins, by the settings' paths; none for settings from an embedding program.
    pub origins: BTreeMap<String, Origin>,
}

impl PluginLookup {
    /// The settings of a plugin.
    pub fn get(&self, plugin: &str) -> &PluginSettings {
        self.by_name.get(plugin).unwrap_or(&self.defaults)
    }

    /// The place of a plugin's settings with these keys: `taskbay.toml, line 3, [plugins.mail]`. If none of them is set, the
    /// place where they could be set.
    pub fn place(&self, plugin: &str, keys: &[&str]) -> String {
        let written = keys.iter().find_map(|key| self.origin(plugin, key));
        match written {
            Some((section, Origin::File { path, line })) => {
                format!("{}, line {line}, [{section}]", path.display())
            }
            Some((_, origin)) => origin.to_string(),
            None => format!("[{}] of taskbay.toml", header(plugin)),
        }
    }

    /// The place of a plugin's section.
    pub fn place_of_section(&self, plugin: &str) -> String {
        let section = header(plugin);
        match self.origins.get(&path_of("plugins", plugin)) {
            Some(Origin::File { path, line }) => format!("{}, line {line}, [{section}]", path.display()),
            _ => format!("[{section}]"),
        }
    }

    /// Whether the plugin's own section has this key.
    pub fn is_own(&self, plugin: &str, key: &str) -> bool {
        self.origins.contains_key(&path_of(&path_of("plugins", plugin), key))
    }

    /// The origin: a flag or variable, then the plugin's own section, then the default section.
    fn origin(&self, plugin: &str, key: &str) -> Option<(String, &Origin)> {
        let own = path_of("plugins", plugin);
        let places = [
            (header(plugin), path_of(PLUGINS, key)),
            (header(plugin), path_of(&own, key)),
            ("plugins.default".to_owned(), path_of("plugins.default", key)),
        ];
        places.into_iter().find_map(|(section, path)| Some((section, self.origins.get(&path)?)))
    }
}

/// The name of a plugin's section in brackets.
fn header(plugin: &str) -> String {
    format!("plugins.{}", bare(plugin))
}
