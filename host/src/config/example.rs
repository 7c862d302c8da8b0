//! Writes the settings as a file with comments, and as tables for the documentation.

use std::fmt::Write as _;

use super::{
    FlagValue, HostSetting, Kind, Layer, PLUGIN_SETTINGS, Purpose, SECTIONS, SETTINGS, Settings, Value,
    setting::{PLUGINS, Setting},
};
use crate::{plugin::PluginSettings, queue::DatabaseSettings};

/// A `taskbay.toml` with every setting, commented out, at its default.
pub fn example_file() -> String {
    let mut text = String::from(
        "# Every setting of Taskbay, at its default. Flags override environment variables, which override this file.\n",
    );
    let [settings, _] = defaults();
    let plugin = PluginSettings::default();
    for (name, about) in SECTIONS {
        let _ = writeln!(text);
        wrap(&mut text, about);
        // An empty section has no effect, so it need not be commented out.
        let _ = writeln!(text, "{}[{}]", if name == PLUGINS { "# " } else { "" }, name.replace("NAME", "default"));
        for setting in SETTINGS.iter().filter(|setting| setting.section == name) {
            describe(&mut text, setting, shown(setting, &settings).map(|value| value.to_string()));
        }
        if name == PLUGINS {
            for setting in PLUGIN_SETTINGS {
                describe(&mut text, setting, (setting.effective)(&plugin).map(|value| value.to_string()));
            }
        }
    }
    text
}

fn describe<L, S>(text: &mut String, setting: &Setting<L, S>, default: Option<String>) {
    let more = if default.is_none() && !setting.without.is_empty() {
        format!(" (not set: {})", setting.without)
    } else {
        String::new()
    };
    wrap(text, &format!("{}{more}", sentence(setting.help)));
    let value = default.unwrap_or_else(|| sample(setting.kind, setting.key).to_owned());
    let _ = writeln!(text, "# {} = {value}", setting.key);
}

/// An example of a value for a setting without a default.
fn sample(kind: Kind, key: &str) -> &'static str {
    match (kind, key) {
        (Kind::Secret, _) => "\"postgres://app@db.example/app\"",
        (Kind::Port, _) => "5432",
        (Kind::Count, _) => "100",
        (Kind::Time | Kind::PositiveTime | Kind::Milliseconds, _) => "\"10m\"",
        (Kind::Size, _) => "\"512MiB\"",
        (_, "host") => "\"db.example\"",
        (_, "sslmode") => "\"prefer\"",
        (_, "level") => "\"info\"",
        (_, "manifest") => "\"SHA256SUMS\"",
        _ => "\"app\"",
    }
}

fn wrap(text: &mut String, line: &str) {
    let mut width = 0;
    for word in line.split(' ') {
        if width == 0 || width + word.len() > 100 {
            let _ = write!(text, "{}#", if width == 0 { "" } else { "\n" });
            width = 1;
        }
        let _ = write!(text, " {word}");
        width += word.len() + 1;
    }
    text.push('\n');
}

fn sentence(help: &str) -> String {
    let mut chars = help.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}

/// A section's settings as a table in Markdown, for docs/settings.md.
pub fn markdown_table(section: &str) -> String {
    let mut text = String::from("| key | meaning | default | flag | variable |\n|---|---|---|---|---|\n");
    let [production, development] = defaults();
    for setting in SETTINGS.iter().filter(|setting| setting.section == section) {
        let [usual, other] = [&production, &development].map(|settings| shown(setting, settings));
        let mut default = in_code(usual.as_ref(), setting.without);
        if usual != other {
            default = format!("{default}; with `--watch` and `dev` {}", in_code(other.as_ref(), ""));
        }
        row(&mut text, setting, &default);
    }
    if section == PLUGINS {
        for setting in PLUGIN_SETTINGS {
            let default = in_code((setting.effective)(&PluginSettings::default()).as_ref(), setting.without);
            row(&mut text, setting, &default);
        }
    }
    text
}

fn in_code(value: Option<&Value>, without: &str) -> String {
    value.map_or_else(|| without.to_owned(), |value| format!("`{value}`"))
}

fn row<L, S>(text: &mut String, setting: &Setting<L, S>, default: &str) {
    let flags: Vec<String> = setting
        .flags
        .iter()
        .map(|flag| match flag.value {
            FlagValue::Named(value) => format!("`--{} {value}`", flag.long),
            FlagValue::Means(_) => format!("`--{}`", flag.long),
        })
        .collect();
    let variables: Vec<String> = setting.variables.iter().map(|variable| format!("`{}`", variable.name)).collect();
    let (flags, variables) = (flags.join(", "), variables.join(", "));
    let _ = writeln!(text, "| `{}` | {} | {default} | {flags} | {variables} |", setting.key, setting.help);
}

/// The default of a setting; paths are relative, unlike the effective ones.
pub(crate) fn default_value(setting: &HostSetting) -> Option<Value> {
    let [production, _] = defaults();
    shown(setting, &production)
}

fn shown(setting: &HostSetting, settings: &Settings) -> Option<Value> {
    match setting.kind {
        Kind::Path => (setting.effective)(settings).map(|_| Value::Text(setting.key.replace("directory", "tasks"))),
        _ => (setting.effective)(settings),
    }
}

/// The defaults of all settings, in production and in development.
fn defaults() -> [Settings; 2] {
    let schema = "graphile_worker";
    [Purpose::Production, Purpose::Development].map(|purpose| {
        Layer::default().into_settings(DatabaseSettings::new(tokio_postgres::Config::new(), schema), purpose)
    })
}
