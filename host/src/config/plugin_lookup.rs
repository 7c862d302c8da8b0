//! The settings of each plugin, and where they are written, for messages about them.

use std::collections::BTreeMap;

use super::{Origin, setting::path_of, table::PLUGINS, value::bare};
use crate::plugin::PluginSettings;

/// The settings of each plugin.
#[derive(Debug, Clone, Default)]
pub struct PluginLookup {
    /// What holds for a plugin that has no section of its own.
    pub defaults: PluginSettings,
    /// By the plugin's name, which is its file's name without `lib` and `.so`.
    pub by_name: BTreeMap<String, PluginSettings>,
    /// Where they come from, by the settings' paths; nothing for those that a program has given.
    pub origins: BTreeMap<String, Origin>,
}

impl PluginLookup {
    /// The settings of a plugin.
    pub fn get(&self, plugin: &str) -> &PluginSettings {
        self.by_name.get(plugin).unwrap_or(&self.defaults)
    }

    /// Where a plugin's settings of these keys are written: `taskbay.toml, line 3, [plugins.mail]`. Where none of them is
    /// written, it is where they would be.
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

    /// Where a plugin's section is.
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

    /// A flag or variable, then the plugin's own section, then that of all.
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

/// A plugin's section as it stands between brackets.
fn header(plugin: &str) -> String {
    format!("plugins.{}", bare(plugin))
}
