//! `taskbay.toml` as a layer of settings. Reads nothing but that file.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Map, Value};
use thiserror::Error;
use toml::de::{DeTable, DeValue};

use super::{
    Clock, Layer, LogFormat, PluginLayer, parse_duration, parse_size,
    section::{Section, Source, WrongSetting, describe},
};
use crate::plugin::Isolation;

/// Why the settings file cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("cannot read the settings file {}: {error}", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Wrong(#[from] WrongSetting),
}

/// The section whose settings hold for plugins that have none of their own.
const DEFAULT: &str = "default";

/// Reads a settings file. Relative paths in it start at the folder that it is in.
pub fn read_file(path: &Path) -> Result<Layer, FileError> {
    let text = std::fs::read_to_string(path).map_err(|error| FileError::Unreadable { path: path.to_owned(), error })?;
    Ok(parse(Source { path, text: &text })?)
}

fn parse(source: Source<'_>) -> Result<Layer, WrongSetting> {
    let root = DeTable::parse(source.text)
        .map_err(|error| source.wrong(error.span().map_or(0, |span| span.start), error.message()))?;
    let mut file = Section::new(source, String::new(), root.get_ref());
    let mut layer = Layer::default();
    if let Some(section) = file.section("database")? {
        database(section, &mut layer)?;
    }
    if let Some(section) = file.section("tasks")? {
        tasks(section, source, &mut layer)?;
    }
    if let Some(section) = file.section("worker")? {
        worker(section, &mut layer)?;
    }
    if let Some(section) = file.section("cron")? {
        cron(section, source, &mut layer)?;
    }
    if let Some(section) = file.section("log")? {
        log(section, &mut layer)?;
    }
    if let Some(section) = file.section("plugins")? {
        for (name, section) in section.sections()? {
            let settings = plugin(section)?;
            if name == DEFAULT {
                layer.plugin_defaults = settings;
            } else {
                layer.plugins.insert(name, settings);
            }
        }
    }
    file.finish()?;
    Ok(layer)
}

fn database(mut section: Section<'_>, layer: &mut Layer) -> Result<(), WrongSetting> {
    // The value is not shown when it is wrong: it may hold a password.
    layer.file_connection =
        section.read("url", |value| value.as_str().map(str::to_owned).ok_or("must be a text".to_owned()))?;
    layer.schema = section.read("schema", text)?;
    layer.max_pool_size = section.read("max_pool_size", count)?;
    layer.prepared_statements = section.read("prepared_statements", truth)?;
    section.finish()
}

fn tasks(mut section: Section<'_>, source: Source<'_>, layer: &mut Layer) -> Result<(), WrongSetting> {
    let folder = source.path.parent().unwrap_or(Path::new(""));
    layer.tasks_directory = section.read("directory", |value| Ok(folder.join(text(value)?)))?;
    layer.settle = section.read("settle", duration)?;
    layer.settle_cap = section.read("settle_cap", duration)?;
    layer.rescan = section.read("rescan", positive_duration)?;
    layer.missing_grace = section.read("missing_grace", duration)?;
    layer.strict_permissions = section.read("strict_permissions", truth)?;
    section.finish()
}

fn worker(mut section: Section<'_>, layer: &mut Layer) -> Result<(), WrongSetting> {
    layer.concurrency = section.read("concurrency", count)?;
    layer.poll_interval = section.read("poll_interval", positive_duration)?;
    layer.abort_timeout = section.read("abort_timeout", duration)?;
    layer.forbidden_flags = section.read("forbidden_flags", texts)?;
    layer.listen = section.read("listen", truth)?;
    layer.clock =
        section.read("clock", |value| choice(value, &[("database", Clock::Database), ("process", Clock::Process)]))?;
    layer.min_reset_locked_interval = section.read("min_reset_locked_interval", positive_duration)?;
    layer.max_reset_locked_interval = section.read("max_reset_locked_interval", positive_duration)?;
    section.finish()
}

fn cron(mut section: Section<'_>, source: Source<'_>, layer: &mut Layer) -> Result<(), WrongSetting> {
    let folder = source.path.parent().unwrap_or(Path::new(""));
    layer.crontab = section.read("crontab", |value| Ok(folder.join(text(value)?)))?;
    section.finish()
}

fn log(mut section: Section<'_>, layer: &mut Layer) -> Result<(), WrongSetting> {
    layer.log_format =
        section.read("format", |value| choice(value, &[("text", LogFormat::Text), ("json", LogFormat::Json)]))?;
    layer.log_filter = section.read("level", text)?;
    section.finish()
}

fn plugin(mut section: Section<'_>) -> Result<PluginLayer, WrongSetting> {
    let layer = PluginLayer {
        isolation: section.read("isolation", |value| {
            choice(value, &[("child", Isolation::Child), ("in-process", Isolation::InProcess)])
        })?,
        memory_limit: section.read("memory_limit", size)?,
        timeout: section.read("timeout", positive_duration)?,
        cancel_grace: section.read("cancel_grace", duration)?,
        start_timeout: section.read("start_timeout", positive_duration)?,
        settings: section.read("settings", |value| match json(value)? {
            Value::Object(settings) => Ok(settings),
            _ => Err(format!("must be a section, not {}", describe(value))),
        })?,
    };
    section.finish()?;
    Ok(layer)
}

fn text(value: &DeValue<'_>) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("must be a text in quotes, not {}", describe(value)))
}

fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let array = value.as_array().ok_or_else(|| format!("must be a list of texts, not {}", describe(value)))?;
    array.iter().map(|item| text(item.get_ref())).collect()
}

fn truth(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("must be true or false, not {}", describe(value)))
}

fn count(value: &DeValue<'_>) -> Result<usize, String> {
    integer(value)
        .and_then(|number| usize::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("must be a whole number from 1, not {}", describe(value)))
}

fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    match value {
        DeValue::String(text) => parse_duration(text),
        other => Err(format!("must be a duration such as \"2s\" or \"500ms\", not {}", describe(other))),
    }
}

fn positive_duration(value: &DeValue<'_>) -> Result<Duration, String> {
    duration(value).and_then(|duration| {
        if duration.is_zero() { Err("must be more than nothing".to_owned()) } else { Ok(duration) }
    })
}

fn size(value: &DeValue<'_>) -> Result<u64, String> {
    match value {
        DeValue::String(text) => parse_size(text),
        other => Err(format!("must be a size such as \"512MiB\", not {}", describe(other))),
    }
}

fn choice<T: Copy>(value: &DeValue<'_>, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(name, _)| value.as_str() == Some(*name)).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        format!("must be {}, not {}", names.join(" or "), describe(value))
    })
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    value.as_integer().and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok())
}

/// What a plugin's own settings are handed over as.
fn json(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            Value::from(integer(value).ok_or_else(|| format!("{number} is too large a number"))?)
        }
        DeValue::Float(number) => {
            let float: f64 = number.as_str().parse().map_err(|_| format!("{number} is not a number"))?;
            serde_json::Number::from_f64(float)
                .map(Value::Number)
                .ok_or_else(|| format!("JSON has no number {number}"))?
        }
        DeValue::Boolean(truth) => Value::from(*truth),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| json(item.get_ref())).collect::<Result<_, _>>()?),
        DeValue::Table(table) => Value::Object(
            table
                .iter()
                .map(|(key, value)| Ok((key.get_ref().to_string(), json(value.get_ref())?)))
                .collect::<Result<Map<_, _>, String>>()?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(Value::Object(plugin.settings.clone().expect("settings")), expected);
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
                "the keys there are: directory, settle, settle_cap, rescan, missing_grace, strict_permissions",
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
    fn a_wrong_connection_is_not_repeated() {
        assert!(!refusal("[database]\nurl = [\"postgres://me:secret@host/db\"]\n").contains("secret"));
    }
}
