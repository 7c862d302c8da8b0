//! Settings as one source gives them, and how the layers become one.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    Clock, CronSettings, FolderSettings, LogFormat, LogSettings, PluginLookup, Purpose, Settings, WorkerSettings,
};
use crate::{
    plugin::{Isolation, PluginSettings},
    queue::DatabaseSettings,
};

/// What one source says: the flags, the environment, or the file. `None`: nothing.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// Given as flag or `DATABASE_URL`.
    pub connection: Option<String>,
    /// Given in the file. Kept apart, because the `PG*` variables stand between the two.
    pub file_connection: Option<String>,
    pub schema: Option<String>,
    pub max_pool_size: Option<usize>,
    pub tasks_directory: Option<PathBuf>,
    pub settle: Option<Duration>,
    pub settle_cap: Option<Duration>,
    pub rescan: Option<Duration>,
    pub missing_grace: Option<Duration>,
    pub strict_permissions: Option<bool>,
    pub concurrency: Option<usize>,
    pub poll_interval: Option<Duration>,
    pub abort_timeout: Option<Duration>,
    pub forbidden_flags: Option<Vec<String>>,
    pub listen: Option<bool>,
    pub clock: Option<Clock>,
    pub min_reset_locked_interval: Option<Duration>,
    pub max_reset_locked_interval: Option<Duration>,
    pub crontab: Option<PathBuf>,
    pub prepared_statements: Option<bool>,
    pub log_format: Option<LogFormat>,
    pub log_filter: Option<String>,
    /// For all plugins, whatever their sections say.
    pub isolation: Option<Isolation>,
    pub plugin_defaults: PluginLayer,
    pub plugins: BTreeMap<String, PluginLayer>,
}

/// What a section of the file says of a plugin.
#[derive(Debug, Clone, Default)]
pub struct PluginLayer {
    pub isolation: Option<Isolation>,
    pub memory_limit: Option<u64>,
    pub timeout: Option<Duration>,
    pub cancel_grace: Option<Duration>,
    pub start_timeout: Option<Duration>,
    pub settings: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Layer {
    /// The environment's layer, but for the `PG*` variables, which complete a connection rather than replace one.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        Self {
            connection: set("DATABASE_URL"),
            schema: set("TASKBAY_SCHEMA").or_else(|| set("GRAPHILE_WORKER_SCHEMA")),
            log_filter: set("RUST_LOG"),
            ..Self::default()
        }
    }

    /// This layer, completed by the one below it.
    #[must_use]
    pub fn or(self, below: Self) -> Self {
        Self {
            connection: self.connection.or(below.connection),
            file_connection: self.file_connection.or(below.file_connection),
            schema: self.schema.or(below.schema),
            max_pool_size: self.max_pool_size.or(below.max_pool_size),
            tasks_directory: self.tasks_directory.or(below.tasks_directory),
            settle: self.settle.or(below.settle),
            settle_cap: self.settle_cap.or(below.settle_cap),
            rescan: self.rescan.or(below.rescan),
            missing_grace: self.missing_grace.or(below.missing_grace),
            strict_permissions: self.strict_permissions.or(below.strict_permissions),
            concurrency: self.concurrency.or(below.concurrency),
            poll_interval: self.poll_interval.or(below.poll_interval),
            abort_timeout: self.abort_timeout.or(below.abort_timeout),
            forbidden_flags: self.forbidden_flags.or(below.forbidden_flags),
            listen: self.listen.or(below.listen),
            clock: self.clock.or(below.clock),
            min_reset_locked_interval: self.min_reset_locked_interval.or(below.min_reset_locked_interval),
            max_reset_locked_interval: self.max_reset_locked_interval.or(below.max_reset_locked_interval),
            crontab: self.crontab.or(below.crontab),
            prepared_statements: self.prepared_statements.or(below.prepared_statements),
            log_format: self.log_format.or(below.log_format),
            log_filter: self.log_filter.or(below.log_filter),
            isolation: self.isolation.or(below.isolation),
            plugin_defaults: self.plugin_defaults.or(&below.plugin_defaults),
            plugins: if self.plugins.is_empty() { below.plugins } else { self.plugins },
        }
    }

    /// What the log looks like. Needed before anything else, so that the rest can be logged.
    pub fn log(&self) -> LogSettings {
        LogSettings { format: self.log_format.unwrap_or_default(), filter: self.log_filter.clone() }
    }

    /// The settings of each plugin, with what is not said filled in.
    pub fn plugins(&self) -> PluginLookup {
        let plugin = |layer: PluginLayer| PluginSettings {
            isolation: self.isolation.or(layer.isolation).unwrap_or_default(),
            ..layer.into_settings()
        };
        let defaults = &self.plugin_defaults;
        let by_name = self.plugins.iter().map(|(name, layer)| (name.clone(), plugin(layer.clone().or(defaults))));
        PluginLookup { by_name: by_name.collect(), defaults: plugin(defaults.clone()) }
    }

    /// All settings, with what is not said filled in.
    pub fn into_settings(self, database: DatabaseSettings, purpose: Purpose) -> Settings {
        Settings {
            database,
            log: self.log(),
            plugins: self.plugins(),
            // The running program, even after its file was replaced.
            program: PathBuf::from("/proc/self/exe"),
            worker: self.worker(),
            cron: CronSettings {
                crontab: self.crontab.clone().unwrap_or_else(|| PathBuf::from("crontab")),
                items: Vec::new(),
            },
            folder: self.folder(purpose),
        }
    }

    fn worker(&self) -> WorkerSettings {
        let default = WorkerSettings::default();
        let (shortest, longest) = default.reset_locked;
        WorkerSettings {
            concurrency: self.concurrency.unwrap_or(default.concurrency),
            poll_interval: self.poll_interval.unwrap_or(default.poll_interval),
            abort_timeout: self.abort_timeout.unwrap_or(default.abort_timeout),
            forbidden_flags: self.forbidden_flags.clone().map_or(default.forbidden_flags, Into::into),
            listen: self.listen.unwrap_or(default.listen),
            clock: self.clock.unwrap_or(default.clock),
            reset_locked: (
                self.min_reset_locked_interval.unwrap_or(shortest),
                self.max_reset_locked_interval.unwrap_or(longest),
            ),
            ..default
        }
    }

    /// How the tasks folder is watched.
    pub fn folder(self, purpose: Purpose) -> FolderSettings {
        let development = purpose == Purpose::Development;
        let (settle, settle_cap) = if development { (25, 2_000) } else { (100, 5_000) };
        let path = self.tasks_directory.unwrap_or_else(|| PathBuf::from("tasks"));
        FolderSettings {
            // Absolute, as the system names the files in it that changed; it fails only where there is no current folder.
            path: std::path::absolute(&path).unwrap_or(path),
            tolerate_broken_start: development,
            settle: self.settle.unwrap_or(Duration::from_millis(settle)),
            settle_cap: self.settle_cap.unwrap_or(Duration::from_millis(settle_cap)),
            rescan: self.rescan.unwrap_or(Duration::from_secs(30)),
            missing_grace: self.missing_grace,
            strict_permissions: self.strict_permissions.unwrap_or(!development),
        }
    }
}

impl PluginLayer {
    fn or(self, below: &Self) -> Self {
        Self {
            isolation: self.isolation.or(below.isolation),
            memory_limit: self.memory_limit.or(below.memory_limit),
            timeout: self.timeout.or(below.timeout),
            cancel_grace: self.cancel_grace.or(below.cancel_grace),
            start_timeout: self.start_timeout.or(below.start_timeout),
            settings: self.settings.or_else(|| below.settings.clone()),
        }
    }

    fn into_settings(self) -> PluginSettings {
        let default = PluginSettings::default();
        PluginSettings {
            isolation: self.isolation.unwrap_or(default.isolation),
            memory_limit: self.memory_limit.or(default.memory_limit),
            timeout: self.timeout.or(default.timeout),
            cancel_grace: self.cancel_grace.unwrap_or(default.cancel_grace),
            start_timeout: self.start_timeout.unwrap_or(default.start_timeout),
            settings: self.settings.unwrap_or(default.settings),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(layer: Layer, purpose: Purpose) -> Settings {
        let database = DatabaseSettings::new(tokio_postgres::Config::new(), "graphile_worker");
        layer.into_settings(database, purpose)
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        let flags = Layer { schema: Some("flag".into()), ..Layer::default() };
        let environment = Layer::from_environment(|name| match name {
            "TASKBAY_SCHEMA" => Some("environment".into()),
            "DATABASE_URL" => Some(String::new()),
            "RUST_LOG" => Some("debug".into()),
            _ => None,
        });
        let file = Layer { log_filter: Some("warn".into()), concurrency: Some(3), ..Layer::default() };
        let layer = flags.or(environment).or(file);
        assert_eq!((layer.schema.as_deref(), layer.log_filter.as_deref()), (Some("flag"), Some("debug")));
        assert_eq!(layer.connection, None, "an empty variable is not set");
        let settings = settings(layer, Purpose::Production);
        assert_eq!((settings.worker.concurrency, settings.worker.poll_interval), (3, Duration::from_secs(2)));
    }

    #[test]
    fn a_plugin_without_a_setting_has_that_of_the_default_section_and_a_flag_beats_both() {
        let mut layer = Layer::default();
        layer.plugin_defaults.timeout = Some(Duration::from_secs(60));
        layer
            .plugins
            .insert("a".into(), PluginLayer { isolation: Some(Isolation::InProcess), ..PluginLayer::default() });
        let found = settings(layer.clone(), Purpose::Production);
        assert_eq!(found.plugins.get("a").timeout, Some(Duration::from_secs(60)));
        assert_eq!(
            (found.plugins.get("a").isolation, found.plugins.get("b").isolation),
            (Isolation::InProcess, Isolation::Child)
        );
        layer.isolation = Some(Isolation::InProcess);
        assert_eq!(settings(layer, Purpose::Production).plugins.get("a").isolation, Isolation::InProcess);
    }

    #[test]
    fn development_is_quicker_and_more_lenient() {
        let [production, development] =
            [Purpose::Production, Purpose::Development].map(|purpose| settings(Layer::default(), purpose).folder);
        assert!(production.strict_permissions && !production.tolerate_broken_start);
        assert!(!development.strict_permissions && development.tolerate_broken_start);
        assert!(development.settle < production.settle);
        assert!(production.path.is_absolute() && production.path.ends_with("tasks"));
    }
}
