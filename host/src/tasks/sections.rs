//! The sections of the settings that are about plugins, held against the plugins that there are.

use super::{
    FolderError,
    folder::Folder,
    listing::{Kind, identifier},
};
use crate::{
    config::{FolderSettings, PluginLookup, nearest},
    events::UnknownSection,
    plugin::{DatabaseAccess, Image, Isolation, LaunchError},
};

/// By which name a file's settings are found.
pub(super) fn plugin_of(file: &str, kind: Kind) -> String {
    match kind {
        Kind::Plugin => Image::plugin_name(file),
        Kind::Executable => identifier(file).to_owned(),
    }
}

/// The sections that are for none of these plugins. Where there is none at all, as before the first build, nothing is known.
pub fn unknown_sections(plugins: &PluginLookup, names: &[String]) -> Vec<UnknownSection> {
    if names.is_empty() {
        return Vec::new();
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let sections = plugins.by_name.keys().filter(|section| !names.contains(&section.as_str()));
    sections
        .map(|section| UnknownSection {
            plugin: section.clone(),
            place: plugins.place_of_section(section),
            nearest: nearest(section, &names).map(str::to_owned),
        })
        .collect()
}

/// The names of the plugins and executables that are in a folder, whether they would be loaded or not.
pub fn plugins_in(settings: &FolderSettings) -> Result<Vec<String>, FolderError> {
    let (folder, _) = Folder::open(&settings.path, false)?;
    let files = folder.list()?.files;
    Ok(files.iter().map(|(file, candidate)| plugin_of(file, candidate.kind)).collect())
}

/// A sentence for each setting of a plugin or executable that does nothing for its kind.
pub(super) fn settings_without_effect(plugins: &PluginLookup, plugin: &str, kind: Kind) -> Vec<String> {
    let settings = plugins.get(plugin);
    let own = |key| plugins.is_own(plugin, key);
    let (candidates, reason): (&[(&str, bool)], _) = match kind {
        Kind::Executable => (
            &[
                ("isolation", own("isolation") && settings.isolation == Isolation::InProcess),
                ("database_url", own("database_url") && settings.database == DatabaseAccess::None),
                ("start_timeout", own("start_timeout")),
                ("roll_back", own("roll_back")),
                ("settings", own("settings")),
            ],
            "is an executable",
        ),
        Kind::Plugin if settings.isolation == Isolation::InProcess => (
            &[
                ("memory_limit", settings.memory_limit.is_some()),
                ("open_files", settings.open_files.is_some()),
                ("processes", settings.processes.is_some()),
                ("roll_back", own("roll_back") && settings.roll_back),
            ],
            "runs in the host's own process",
        ),
        Kind::Plugin => (&[], ""),
    };
    let without_effect = candidates.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| {
        let place = plugins.place(plugin, &[key]);
        format!("the setting {key} of {plugin} ({place}) has no effect, because {plugin} {reason}")
    });
    without_effect.collect()
}

/// Why a build did not start; if that is because of its settings, with the place where they are written.
pub(super) fn explain(plugins: &PluginLookup, plugin: &str, error: &LaunchError) -> String {
    let LaunchError::Setting { key, reason } = error else { return error.to_string() };
    let keys: Vec<&str> = key.split([',', ' ']).collect();
    let hint = meant_field(reason).map_or_else(String::new, |field| format!("; did you mean {field}?"));
    format!("{reason}{hint} (see {})", plugins.place(plugin, &keys))
}

/// Which field was probably meant, if a message says that there is no such field and which there are.
fn meant_field(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (unknown, rest) = rest.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    nearest(unknown, &known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_that_was_meant_is_found_in_the_message() {
        let message = |fields: &str| format!("the settings do not fit: unknown field `outbx`, expected {fields}");
        assert_eq!(meant_field(&message("`outbox` or `from`")), Some("outbox"));
        assert_eq!(meant_field(&message("one of `from`, `to`, `out_box`")), Some("out_box"));
        assert_eq!(meant_field(&message("there are no fields")), None);
        assert_eq!(meant_field("missing field `from`"), None);
    }

    #[test]
    fn a_section_of_no_plugin_is_told_with_the_nearest_name() {
        let mut plugins = PluginLookup::default();
        for name in ["blokcy", "mail"] {
            plugins.by_name.insert(name.to_owned(), crate::plugin::PluginSettings::default());
        }
        let unknown = unknown_sections(&plugins, &["blocky".to_owned(), "mail".to_owned()]);
        assert_eq!(unknown.len(), 1);
        assert_eq!(
            unknown[0].to_string(),
            "there is no plugin blokcy in the tasks folder, so its settings ([plugins.blokcy]) have no effect; did you mean \
             blocky?"
        );
    }
}
