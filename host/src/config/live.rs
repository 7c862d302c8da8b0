//! What can change while a host runs, and what only the next start applies.

use super::{
    FolderSettings, Layer, PLUGIN_SETTINGS, PluginLayer, PluginLookup, SETTINGS, setting::path_of, table::URL,
};

/// The settings that can change while a host runs.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    pub folder: FolderSettings,
    pub plugins: PluginLookup,
}

/// Which settings of two layers differ, by their paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Those of [`LiveSettings`].
    pub live: Vec<String>,
    /// The others.
    pub at_restart: Vec<String>,
}

/// Compares what two layers say.
pub fn changes(before: &Layer, now: &Layer) -> Changes {
    let mut changes = Changes::default();
    for setting in SETTINGS.iter().filter(|setting| (setting.field.get)(before) != (setting.field.get)(now)) {
        let live = setting.section == "tasks" && setting.key != "directory";
        if live { &mut changes.live } else { &mut changes.at_restart }.push(setting.path());
    }
    if before.file_connection != now.file_connection && !changes.at_restart.iter().any(|path| path == URL) {
        changes.at_restart.push(URL.to_owned());
    }
    let nothing = PluginLayer::default();
    let of_plugin = |layer: &'_ Layer, name: &str| layer.plugins.get(name).unwrap_or(&nothing).clone();
    let names = before.plugins.keys().chain(now.plugins.keys().filter(|name| !before.plugins.contains_key(*name)));
    let own = names.map(|name| (path_of("plugins", name), of_plugin(before, name), of_plugin(now, name)));
    let all = ("plugins.default".to_owned(), before.plugin_defaults.clone(), now.plugin_defaults.clone());
    for (section, before, now) in std::iter::once(all).chain(own) {
        let changed =
            PLUGIN_SETTINGS.iter().filter(|setting| (setting.field.get)(&before) != (setting.field.get)(&now));
        changes.live.extend(changed.map(|setting| path_of(&section, setting.key)));
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_differs_is_told_by_its_path_and_by_when_it_counts() {
        let mut before = Layer { concurrency: Some(1), rescan: Some(Duration::from_secs(1)), ..Layer::default() };
        before.plugins.insert("gone".into(), PluginLayer { memory_limit: Some(1), ..PluginLayer::default() });
        let mut now = Layer { concurrency: Some(2), file_connection: Some("x".into()), ..Layer::default() };
        now.plugins.insert("new".into(), PluginLayer { roll_back: Some(true), ..PluginLayer::default() });
        now.plugin_defaults.timeout = Some(Duration::from_secs(1));
        let found = changes(&before, &now);
        assert_eq!(
            found.live,
            ["tasks.rescan", "plugins.default.timeout", "plugins.gone.memory_limit", "plugins.new.roll_back"]
        );
        assert_eq!(found.at_restart, ["worker.concurrency", "database.url"]);
        assert_eq!(changes(&now, &now), Changes::default());
    }
}
