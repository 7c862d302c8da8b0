//! The merge of layers, and the settings that they make.

use std::{path::PathBuf, time::Duration};

use super::{
    Contradiction, CronSettings, FolderSettings, HostSetting, Layer, LocalQueue, LogSettings, Origin, PLUGIN_SETTINGS,
    PluginLayer, PluginLookup, PluginSetting, Purpose, Refetch, SETTINGS, Setting, Settings, Value, WorkerSettings,
    check,
};
use crate::{
    plugin::{DatabaseAccess, PluginSettings},
    queue::DatabaseSettings,
};

impl Layer {
    /// Completes this layer with the one below it.
    #[must_use]
    pub fn or(mut self, mut below: Self) -> Self {
        complete(SETTINGS.iter().copied(), &mut self, &below);
        complete(PLUGIN_SETTINGS, &mut self.all_plugins, &below.all_plugins);
        complete(PLUGIN_SETTINGS, &mut self.plugin_defaults, &below.plugin_defaults);
        if self.file_connection.is_none() {
            self.file_connection = below.file_connection;
        }
        if self.plugins.is_empty() {
            self.plugins = below.plugins;
        }
        below.origins.append(&mut self.origins);
        self.origins = below.origins;
        self
    }

    /// Sets a setting, and records its origin.
    pub(crate) fn set(&mut self, setting: &HostSetting, value: Value, origin: Origin) {
        (setting.field.set)(self, value);
        self.note(setting.path(), origin);
    }

    /// Sets a plugin setting for all plugins, and records its origin.
    pub(crate) fn set_for_all_plugins(&mut self, setting: &PluginSetting, value: Value, origin: Origin) {
        (setting.field.set)(&mut self.all_plugins, value);
        self.note(setting.path(), origin);
    }

    /// The settings of the log, which are needed first, to log everything else.
    pub fn log(&self) -> LogSettings {
        LogSettings {
            format: self.log_format.unwrap_or_default(),
            filter: self.log_filter.clone(),
            success: self.log_success.unwrap_or(true),
        }
    }

    /// The settings of each plugin, completed with defaults.
    pub fn plugins(&self) -> PluginLookup {
        let plugin = |layer: &PluginLayer| {
            let mut found = self.all_plugins.clone();
            complete(PLUGIN_SETTINGS, &mut found, layer);
            complete(PLUGIN_SETTINGS, &mut found, &self.plugin_defaults);
            found.into_settings(self.connection.as_ref())
        };
        PluginLookup {
            by_name: self.plugins.iter().map(|(name, layer)| (name.clone(), plugin(layer))).collect(),
            defaults: plugin(&PluginLayer::default()),
            origins: self
                .origins
                .iter()
                .filter(|(path, _)| path.starts_with("plugins."))
                .map(|(path, origin)| (path.clone(), origin.clone()))
                .collect(),
        }
    }

    /// All settings, completed with defaults and validated.
    pub fn into_working_settings(
        self,
        database: DatabaseSettings,
        purpose: Purpose,
    ) -> Result<Settings, Contradiction> {
        let settings = self.clone().into_settings(database, purpose);
        check(&self, &settings)?;
        Ok(settings)
    }

    /// All settings, completed with defaults.
    pub fn into_settings(self, database: DatabaseSettings, purpose: Purpose) -> Settings {
        Settings {
            database,
            log: self.log(),
            plugins: self.plugins(),
            // Refers to the running program even after its file was replaced.
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
            stop_timeout: self.stop_timeout.or(default.stop_timeout),
            forbidden_flags: self.forbidden_flags.clone().map_or(default.forbidden_flags, Into::into),
            listen: self.listen.unwrap_or(default.listen),
            liveness: self.liveness.unwrap_or(default.liveness),
            max_crashes: self.max_crashes.unwrap_or(default.max_crashes),
            clock: self.clock.unwrap_or(default.clock),
            claim: self.claim.unwrap_or(default.claim),
            local_queue: self.local_queue(),
            complete_job_batch_delay: self.complete_job_batch_delay.unwrap_or(default.complete_job_batch_delay),
            fail_job_batch_delay: self.fail_job_batch_delay.unwrap_or(default.fail_job_batch_delay),
            reset_locked: (
                self.min_reset_locked_interval.unwrap_or(shortest),
                self.max_reset_locked_interval.unwrap_or(longest),
            ),
            ..default
        }
    }

    fn local_queue(&self) -> Option<LocalQueue> {
        let size = self.local_queue_size?;
        let ttl = self.local_queue_ttl.unwrap_or(LocalQueue::TTL);
        let refetch = self.refetch_delay.map(|delay| Refetch {
            delay,
            threshold: self.refetch_threshold.unwrap_or_default(),
            max_abort_threshold: self.refetch_max_abort_threshold.unwrap_or(size.saturating_mul(5)),
        });
        Some(LocalQueue { size, ttl, refetch })
    }

    /// The settings of the tasks folder.
    pub fn folder(self, purpose: Purpose) -> FolderSettings {
        let development = purpose == Purpose::Development;
        let (settle, settle_cap) = if development { (25, 2_000) } else { (100, 5_000) };
        // Fails only without a current folder.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        FolderSettings {
            // The system reports changed files by such paths.
            path: absolute(self.tasks_directory.unwrap_or_else(|| PathBuf::from("tasks"))),
            filled_by_builds: false,
            tolerate_broken_start: development,
            settle: self.settle.unwrap_or(Duration::from_millis(settle)),
            settle_cap: self.settle_cap.unwrap_or(Duration::from_millis(settle_cap)),
            rescan: self.rescan.unwrap_or(Duration::from_secs(30)),
            missing_grace: self.missing_grace,
            strict_permissions: self.strict_permissions.unwrap_or(!development),
            manifest: self.manifest.map(absolute),
            trusted_keys: self.trusted_keys.unwrap_or_default(),
        }
    }
}

impl PluginLayer {
    /// `connection` is the host's database, unless the environment names it.
    fn into_settings(self, connection: Option<&String>) -> PluginSettings {
        let default = PluginSettings::default();
        PluginSettings {
            isolation: self.isolation.unwrap_or(default.isolation),
            memory_limit: self.memory_limit.or(default.memory_limit),
            open_files: self.open_files.or(default.open_files),
            processes: self.processes.or(default.processes),
            user: self.user.or(default.user),
            database: match (self.database_url, connection) {
                (Some(true), Some(url)) => DatabaseAccess::Url(url.clone()),
                (Some(true), None) => DatabaseAccess::Environment,
                (Some(false) | None, _) => default.database,
            },
            timeout: self.timeout.or(default.timeout),
            cancel_grace: self.cancel_grace.unwrap_or(default.cancel_grace),
            start_timeout: self.start_timeout.unwrap_or(default.start_timeout),
            roll_back: self.roll_back.unwrap_or(default.roll_back),
            settings: self.settings.unwrap_or(default.settings),
        }
    }
}

/// Copies a layer's missing values from the layer below.
fn complete<L: 'static, S: 'static>(
    settings: impl IntoIterator<Item = &'static Setting<L, S>>,
    layer: &mut L,
    below: &L,
) {
    for setting in settings {
        if (setting.field.get)(layer).is_none()
            && let Some(value) = (setting.field.get)(below)
        {
            (setting.field.set)(layer, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Isolation;

    fn settings(layer: Layer, purpose: Purpose) -> Settings {
        let database = DatabaseSettings::new(tokio_postgres::Config::new(), "graphile_worker");
        layer.into_settings(database, purpose)
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        let flags = Layer { schema: Some("flag".into()), ..Layer::default() };
        let environment =
            Layer { schema: Some("environment".into()), log_filter: Some("debug".into()), ..Layer::default() };
        let file = Layer { log_filter: Some("warn".into()), concurrency: Some(3), ..Layer::default() };
        let layer = flags.or(environment).or(file);
        assert_eq!((layer.schema.as_deref(), layer.log_filter.as_deref()), (Some("flag"), Some("debug")));
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
        layer.all_plugins.isolation = Some(Isolation::InProcess);
        assert_eq!(settings(layer, Purpose::Production).plugins.get("b").isolation, Isolation::InProcess);
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
