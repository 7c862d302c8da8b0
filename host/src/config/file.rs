//! `taskbay.toml` as a layer of settings.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;
use toml::de::DeTable;

use super::{
    Layer, Origin, PLUGIN_SETTINGS, PluginLayer, SECTIONS, SETTINGS, Value,
    section::{Section, Source, WrongSetting},
    setting::PLUGINS,
    setting::{Setting, path_of},
    table::URL,
};

/// The reason why the settings file cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("cannot read the settings file {}: {error}", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Wrong(#[from] WrongSetting),
}

/// The section with the defaults for all plugins.
const DEFAULT: &str = "default";

/// Reads a settings file. Relative paths in it are relative to the file's folder.
pub fn read_file(path: &Path) -> Result<Layer, FileError> {
    let text = std::fs::read_to_string(path).map_err(|error| FileError::Unreadable { path: path.to_owned(), error })?;
    Ok(parse(Source { path, text: &text })?)
}

pub(super) fn parse(source: Source<'_>) -> Result<Layer, WrongSetting> {
    let root = DeTable::parse(source.text)
        .map_err(|error| source.wrong(error.span().map_or(0, |span| span.start), error.message()))?;
    let mut file = Section::new(source, String::new(), root.get_ref());
    let mut layer = Layer::default();
    for (name, _) in SECTIONS.iter().filter(|(name, _)| *name != PLUGINS) {
        if let Some(mut section) = file.section(name)? {
            for setting in SETTINGS.iter().filter(|setting| setting.section == *name) {
                read(setting, &mut section, source.path, &mut layer, |layer| layer)?;
            }
            section.finish()?;
        }
    }
    if let Some(section) = file.section("plugins")? {
        for (name, mut section) in section.sections()? {
            if name != DEFAULT {
                layer.plugins.insert(name.clone(), PluginLayer::default());
                layer.note(section.name(), Origin::File { path: source.path.to_owned(), line: section.line() });
            }
            for setting in PLUGIN_SETTINGS {
                read(setting, &mut section, source.path, &mut layer, |layer| {
                    layer.plugins.get_mut(&name).unwrap_or(&mut layer.plugin_defaults)
                })?;
            }
            section.finish()?;
        }
    }
    file.finish()?;
    settle_connection(&mut layer)?;
    Ok(layer)
}

/// Reads a key into its field of the layer.
fn read<'l, L: 'l, S>(
    setting: &Setting<L, S>,
    section: &mut Section<'_>,
    file: &Path,
    layer: &'l mut Layer,
    part: impl FnOnce(&'l mut Layer) -> &'l mut L,
) -> Result<(), WrongSetting> {
    let Some((value, line)) = section.read(setting.key, |value| setting.kind.read_toml(value))? else {
        return Ok(());
    };
    let value = match value {
        Value::Path(path) => Value::Path(file.parent().unwrap_or(Path::new("")).join(path)),
        value => value,
    };
    let origin = Origin::File { path: file.to_owned(), line };
    layer.note(path_of(section.name(), setting.key), origin);
    (setting.field.set)(part(layer), value);
    Ok(())
}

/// Reads the file's connection into a separate field: the `PG*` variables override it, but not other connection strings.
fn settle_connection(layer: &mut Layer) -> Result<(), WrongSetting> {
    let port = layer.file_port.map(|port| port.to_string());
    let parts = [
        ("host", &layer.file_host),
        ("port", &port),
        ("user", &layer.file_user),
        ("dbname", &layer.file_dbname),
        ("sslmode", &layer.file_sslmode),
    ];
    let quoted = |text: &str| text.replace('\\', r"\\").replace('\'', r"\'");
    let given: Vec<(&str, String)> = parts
        .iter()
        .filter_map(|(key, value)| value.as_ref().map(|value| (*key, format!("{key}='{}'", quoted(value)))))
        .collect();
    layer.file_connection = layer.connection.take();
    let Some((key, _)) = given.first() else { return Ok(()) };
    let path = path_of("database", key);
    if layer.file_connection.is_some() {
        let (part, url) = (layer.origin(&path), layer.origin(URL));
        return Err(WrongSetting::between(&part, format!("{path} contradicts {URL} ({url}): remove one of them")));
    }
    let origin = layer.origin(&path);
    layer.note(URL, origin);
    layer.file_connection = Some(given.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plugin::Isolation;

    #[track_caller]
    fn read(text: &str) -> Layer {
        parse(Source { path: Path::new("/etc/app/taskbay.toml"), text }).expect("settings that can be used")
    }

    #[track_caller]
    fn refusal(text: &str) -> String {
        parse(Source { path: Path::new("taskbay.toml"), text }).expect_err("settings that cannot be used").to_string()
    }

    #[test]
    fn every_setting_can_be_written() {
        let layer = read(
            r#"
            [database]
            url = "postgres://localhost/app"
            schema = "jobs"
            max_pool_size = 4
            [tasks]
            directory = "plugins"
            settle = "50ms"
            settle_cap = "1s"
            rescan = "1m"
            missing_grace = "10s"
            strict_permissions = false
            [worker]
            concurrency = 0x10
            poll_interval = "500ms"
            abort_timeout = "0s"
            [log]
            format = "json"
            level = "debug"
            [plugins.default]
            timeout = "1m"
            [plugins.send_email]
            isolation = "in-process"
            memory_limit = "512MiB"
            cancel_grace = "1s"
            start_timeout = "5s"
            settings = { from = "me", retries = 3, ratio = 0.5, since = 1979-05-27, on = [true] }
            "#,
        );
        assert_eq!(layer.tasks_directory.as_deref(), Some(Path::new("/etc/app/plugins")));
        assert_eq!((layer.concurrency, layer.max_pool_size), (Some(16), Some(4)));
        assert_eq!(layer.poll_interval, Some(Duration::from_millis(500)));
        assert_eq!(layer.plugin_defaults.timeout, Some(Duration::from_secs(60)));
        let plugin = &layer.plugins["send_email"];
        assert_eq!((plugin.isolation, plugin.memory_limit), (Some(Isolation::InProcess), Some(512 << 20)));
        let expected =
            serde_json::json!({"from": "me", "retries": 3, "ratio": 0.5, "since": "1979-05-27", "on": [true]});
        assert_eq!(serde_json::Value::Object(plugin.settings.clone().expect("settings")), expected);
    }

    #[test]
    fn what_is_unknown_or_wrong_is_refused_with_its_place() {
        for (text, message) in [
            (
                "[worker]\nconcurency = 3\n",
                "line 2: unknown key \"concurency\" in [worker]; did you mean \"concurrency\"?",
            ),
            ("[workers]\n", "line 1: unknown section \"workers\"; did you mean \"worker\"?"),
            (
                "[plugins.a]\n\nmemory-limit = \"1GB\"\n",
                "line 3: unknown key \"memory-limit\" in [plugins.a]; did you mean \"memory_limit\"?",
            ),
            (
                "[tasks]\nfrobnicate = 1\n",
                "the keys there are: directory, settle, settle_cap, rescan, missing_grace, strict_permissions, manifest, trusted_keys",
            ),
            (
                "[worker]\nconcurrency = \"ten\"\n",
                "line 2: worker.concurrency: must be a whole number from 1, not the text \"ten\"",
            ),
            ("[worker]\nconcurrency = 0\n", "must be a whole number from 1, not the number 0"),
            ("[worker]\npoll_interval = 2000\n", "must be a duration such as \"2s\" or \"500ms\", not the number 2000"),
            ("[worker]\npoll_interval = \"2 fortnights\"\n", "\"2 fortnights\" is not a duration"),
            ("[plugins.a]\nisolation = \"thread\"\n", "must be \"child\" or \"in-process\", not the text \"thread\""),
            ("[plugins]\nisolation = \"child\"\n", "plugins.isolation must be a section, written [plugins.isolation]"),
            ("[worker]\nconcurrency = \n", "taskbay.toml, line 2: "),
        ] {
            let refused = refusal(text);
            assert!(refused.contains(message), "{text:?} was refused with {refused:?}");
        }
    }

    #[test]
    fn a_connection_can_be_written_in_parts() {
        let layer = read("[database]\nhost = \"db\"\nport = 5433\nuser = \"o'neil\"\n");
        assert_eq!(layer.file_connection.as_deref(), Some(r"host='db' port='5433' user='o\'neil'"));
        let config: tokio_postgres::Config = layer.file_connection.expect("a connection").parse().expect("readable");
        assert_eq!((config.get_user(), config.get_ports()), (Some("o'neil"), &[5433][..]));
        let refused = refusal("[database]\nurl = \"postgres://db\"\nport = 5433\n");
        assert_eq!(
            refused,
            "taskbay.toml, line 3: database.port contradicts database.url (taskbay.toml, line 2): \
             remove one of them"
        );
        assert!(refusal("[database]\nport = 70000\n").contains("must be a port from 1 to 65535"));
    }

    #[test]
    fn where_a_setting_was_found_is_remembered() {
        let layer =
            read("[worker]\nconcurrency = 3\n[plugins.default]\ntimeout = \"1s\"\n[plugins.a]\ntimeout = \"2s\"\n");
        for (path, line) in [("worker.concurrency", 2), ("plugins.default.timeout", 4), ("plugins.a.timeout", 6)] {
            assert_eq!(layer.origin(path), Origin::File { path: "/etc/app/taskbay.toml".into(), line }, "{path}");
        }
    }

    #[test]
    fn a_wrong_connection_is_not_repeated() {
        assert!(!refusal("[database]\nurl = [\"postgres://me:secret@host/db\"]\n").contains("secret"));
    }
}
