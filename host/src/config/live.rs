//! Distinguishes settings that a running host can change from those that need a restart.

use super::{
    EffectiveSetting, FolderSettings, Layer, PLUGIN_SETTINGS, PluginLayer, PluginLookup, SETTINGS, setting::path_of,
    table::URL,
};

/// The settings that can change while a host runs.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    pub folder: FolderSettings,
    pub plugins: PluginLookup,
}

/// The differing settings of two layers, by their paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The folder's settings among [`LiveSettings`].
    pub folder: Vec<String>,
    /// The plugins' settings.
    pub plugins: Vec<PluginChange>,
    /// All other settings.
    pub at_restart: Vec<String>,
}

/// A setting in a section for plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginChange {
    /// The plugin; `None` for the default section.
    pub plugin: Option<String>,
    pub key: &'static str,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.folder.is_empty() && self.plugins.is_empty() && self.at_restart.is_empty()
    }
}

impl PluginChange {
    /// The setting's path.
    pub fn path(&self) -> String {
        path_of(&path_of("plugins", self.plugin.as_deref().unwrap_or("default")), self.key)
    }
}

/// The settings in force in a running host: those that it was started with, but for the ones that can change, which are those that
/// were read last.
pub fn in_force(at_start: &[EffectiveSetting], mut last: Vec<EffectiveSetting>) -> Vec<EffectiveSetting> {
    for setting in last.iter_mut().filter(|one| !is_live(&one.section, one.key) && !one.section.starts_with("plugins."))
    {
        let same = at_start.iter().find(|one| one.section == setting.section && one.key == setting.key);
        if let Some(same) = same {
            setting.clone_from(same);
        }
    }
    last
}

/// Whether this setting of the host can change while it runs.
fn is_live(section: &str, key: &str) -> bool {
    section == "tasks" && key != "directory"
}

/// Compares two layers.
pub fn changes(before: &Layer, now: &Layer) -> Changes {
    let mut changes = Changes::default();
    for setting in SETTINGS.iter().filter(|setting| (setting.field.get)(before) != (setting.field.get)(now)) {
        if is_live(setting.section, setting.key) { &mut changes.folder } else { &mut changes.at_restart }
            .push(setting.path());
    }
    if before.file_connection != now.file_connection && !changes.at_restart.iter().any(|path| path == URL) {
        changes.at_restart.push(URL.to_owned());
    }
    let nothing = PluginLayer::default();
    let of_plugin = |layer: &'_ Layer, name: &str| layer.plugins.get(name).unwrap_or(&nothing).clone();
    let names = before.plugins.keys().chain(now.plugins.keys().filter(|name| !before.plugins.contains_key(*name)));
    let own = names.map(|name| (Some(name.clone()), of_plugin(before, name), of_plugin(now, name)));
    let all = (None, before.plugin_defaults.clone(), now.plugin_defaults.clone());
    for (plugin, before, now) in std::iter::once(all).chain(own) {
        let changed =
            PLUGIN_SETTINGS.iter().filter(|setting| (setting.field.get)(&before) != (setting.field.get)(&now));
        changes.plugins.extend(changed.map(|setting| PluginChange { plugin: plugin.clone(), key: setting.key }));
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{config::Purpose, queue::DatabaseSettings};

    #[test]
    fn what_differs_is_told_by_its_path_and_by_when_it_counts() {
        let mut before = Layer { concurrency: Some(1), rescan: Some(Duration::from_secs(1)), ..Layer::default() };
        before.plugins.insert("gone".into(), PluginLayer { memory_limit: Some(1), ..PluginLayer::default() });
        let mut now = Layer { concurrency: Some(2), file_connection: Some("x".into()), ..Layer::default() };
        now.plugins.insert("new".into(), PluginLayer { roll_back: Some(true), ..PluginLayer::default() });
        now.plugin_defaults.timeout = Some(Duration::from_secs(1));
        let found = changes(&before, &now);
        assert_eq!(found.folder, ["tasks.rescan"]);
        let of_plugins: Vec<String> = found.plugins.iter().map(PluginChange::path).collect();
        assert_eq!(of_plugins, ["plugins.default.timeout", "plugins.gone.memory_limit", "plugins.new.roll_back"]);
        assert_eq!(found.at_restart, ["worker.concurrency", "database.url"]);
        assert_eq!(changes(&now, &now), Changes::default());
    }

    #[test]
    fn what_can_change_is_in_force_as_it_was_read_last_and_the_rest_as_at_the_start() {
        let list = |layer: Layer| {
            let database = DatabaseSettings::new(tokio_postgres::Config::new(), "s");
            let settings = layer.clone().into_settings(database, Purpose::Production);
            super::super::effective_settings(&layer, &settings, false, |_| None)
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let at_start = Layer { concurrency: Some(1), rescan: seconds(1), ..Layer::default() };
        let mut last = Layer { concurrency: Some(2), rescan: seconds(2), ..Layer::default() };
        last.plugin_defaults.timeout = seconds(3);
        let (at_start, last) = (list(at_start), list(last));
        let in_force = in_force(&at_start, last.clone());
        let value = |of: &[EffectiveSetting], key| of.iter().find(|one| one.key == key).unwrap().value.clone();
        assert_eq!(value(&in_force, "concurrency"), value(&at_start, "concurrency"));
        assert_ne!(value(&in_force, "concurrency"), value(&last, "concurrency"));
        assert_eq!(value(&in_force, "rescan"), value(&last, "rescan"));
        assert_eq!(value(&in_force, "timeout"), value(&last, "timeout"));
    }
}
