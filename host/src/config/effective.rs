//! The effective settings, each with its value and origin.

use serde_json::{Map, Value as Json};
use tokio_postgres::config::Host;

use super::{
    CronSettings, FolderSettings, Layer, Origin, PLUGIN_SETTINGS, PluginLookup, Purpose, SETTINGS, Settings, Value,
    WorkerSettings, setting::path_of, table::URL,
};
use crate::queue::{DatabaseSettings, TlsMode};

/// An effective setting.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveSetting {
    /// The name in brackets in the file.
    pub section: String,
    pub key: &'static str,
    /// `None`: not set and without a default; `without` describes the effect.
    pub value: Option<Value>,
    pub without: &'static str,
    pub origin: Origin,
}

/// All effective settings. The database's address is without its password. `database_known` is true if the settings name a
/// database.
pub fn effective_settings(
    layer: &Layer,
    settings: &Settings,
    database_known: bool,
    variable: impl Fn(&str) -> Option<String>,
) -> Vec<EffectiveSetting> {
    let mut list = Vec::new();
    for setting in SETTINGS.iter() {
        let path = setting.path();
        let (value, origin) = if path == URL {
            let url = database_known.then(|| Value::Text(address(&settings.database)));
            (url, url_origin(layer, variable_set(&variable)))
        } else {
            ((setting.effective)(settings), layer.origin(&path))
        };
        // The separate parts are shown as one address.
        let part = setting.section == "database" && setting.flags.is_empty();
        if !part {
            let section = setting.section.to_owned();
            list.push(EffectiveSetting { section, key: setting.key, value, without: setting.without, origin });
        }
    }
    let PluginLookup { defaults, by_name, .. } = &settings.plugins;
    let default = "default".to_owned();
    for (name, settings) in std::iter::once((&default, defaults)).chain(by_name) {
        for setting in PLUGIN_SETTINGS {
            let section = path_of("plugins", name);
            // A flag or variable, then the plugin's own section, then the default section.
            let places = [setting.path(), path_of(&section, setting.key), path_of("plugins.default", setting.key)];
            let origin = places.iter().map(|path| layer.origin(path)).find(|origin| *origin != Origin::Default);
            list.push(EffectiveSetting {
                section,
                key: setting.key,
                value: (setting.effective)(settings).map(without_secrets),
                without: setting.without,
                origin: origin.unwrap_or_default(),
            });
        }
    }
    list
}

/// The effective settings of a host that a program starts. What differs from its default was set by the program.
pub fn settings_of_program(
    worker: &WorkerSettings,
    folder: Option<&FolderSettings>,
    cron: Option<&CronSettings>,
    plugins: &PluginLookup,
) -> Vec<EffectiveSetting> {
    let nowhere = || DatabaseSettings::new(tokio_postgres::Config::new(), "");
    let default = Layer::default().into_settings(nowhere(), Purpose::Production);
    let settings = Settings {
        worker: worker.clone(),
        folder: folder.unwrap_or(&default.folder).clone(),
        cron: cron.unwrap_or(&default.cron).clone(),
        plugins: plugins.clone(),
        ..default.clone()
    };
    let list = |settings| effective_settings(&Layer::default(), settings, false, |_| None);
    let default = list(&default);
    let is_of_host = |one: &EffectiveSetting| match one.section.as_str() {
        "tasks" => folder.is_some(),
        "cron" => cron.is_some(),
        section => section == "worker" || section.starts_with("plugins."),
    };
    let with_origin = |one: EffectiveSetting| {
        // A plugin's own section has the defaults of all plugins.
        let section = if one.section.starts_with("plugins.") { "plugins.default" } else { &one.section };
        let is_default = default.iter().any(|of| of.section == section && of.key == one.key && of.value == one.value);
        EffectiveSetting { origin: if is_default { Origin::Default } else { Origin::Program }, ..one }
    };
    list(&settings).into_iter().filter(is_of_host).map(with_origin).collect()
}

/// Hides passwords in a plugin's own settings, which are recognized by their names.
fn without_secrets(value: Value) -> Value {
    match value {
        Value::Table(mut table) => {
            hide(&mut table);
            Value::Table(table)
        }
        value => value,
    }
}

fn hide(table: &mut Map<String, Json>) {
    for (key, value) in table.iter_mut() {
        let key = key.to_lowercase();
        match value {
            Json::Object(inner) => hide(inner),
            value if ["password", "secret", "token", "credential"].iter().any(|word| key.contains(word)) => {
                *value = Json::from("***");
            }
            _ => {}
        }
    }
}

fn variable_set(variable: impl Fn(&str) -> Option<String>) -> impl Fn(&str) -> bool {
    move |name| variable(name).is_some_and(|value| !value.is_empty())
}

/// In the same order of precedence as `database_settings`.
fn url_origin(layer: &Layer, set: impl Fn(&str) -> bool) -> Origin {
    if layer.connection.is_some() {
        layer.origin(URL)
    } else if let Some(name) = ["PGDATABASE", "PGSERVICE"].into_iter().find(|name| set(name)) {
        Origin::Variable(name.to_owned())
    } else if layer.file_connection.is_some() {
        layer.origin(URL)
    } else if let Some(name) = ["PGHOST", "PGHOSTADDR"].into_iter().find(|name| set(name)) {
        Origin::Variable(name.to_owned())
    } else {
        Origin::Default
    }
}

/// The address as `postgres://…`, assembled from the parsed values instead of copied, to exclude secrets.
fn address(database: &DatabaseSettings) -> String {
    let config = &database.config;
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(place, host)| {
            let host = match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(folder) => folder.display().to_string().replace('/', "%2F"),
            };
            let ports = config.get_ports();
            let port = ports.get(place).or_else(|| ports.first()).copied().unwrap_or(5432);
            format!("{host}:{port}")
        })
        .collect();
    let user = config.get_user().unwrap_or_default();
    let password = if config.get_password().is_some() { ":***" } else { "" };
    let sslmode = match database.tls.mode {
        None | Some(TlsMode::Prefer) => String::new(),
        Some(mode) => format!("?sslmode={mode}"),
    };
    format!("postgres://{user}{password}@{}/{}{sslmode}", hosts.join(","), config.get_dbname().unwrap_or(user))
}
