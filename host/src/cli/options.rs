//! Options that several commands share, and the layer of settings that they make.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::{CliError, setting_flags};
use crate::{
    config::{self, Layer},
    plugin::FileKey,
};

/// The settings file that is read if it is there.
const SETTINGS_FILE: &str = "taskbay.toml";

/// Options of every command.
#[derive(Debug, Args)]
pub(super) struct GlobalOptions {
    /// The settings file [default: taskbay.toml in the current folder, if there is one]
    #[arg(short = 'C', long, global = true, value_name = "FILE", help_heading = "General options")]
    config: Option<PathBuf>,
    #[command(flatten)]
    log: LogOptions,
}

/// The settings that flags set. The flags are those of the settings' table.
macro_rules! setting_options {
    ($name:ident, $sections:expr, $heading:expr, $global:expr, $plugins:expr) => {
        #[derive(Debug)]
        pub(super) struct $name {
            layer: Layer,
        }

        impl Args for $name {
            fn augment_args(command: Command) -> Command {
                let command = setting_flags::add(command, $sections, $heading, $global);
                if $plugins { setting_flags::add_for_plugins(command) } else { command }
            }

            fn augment_args_for_update(command: Command) -> Command {
                Self::augment_args(command)
            }
        }

        impl FromArgMatches for $name {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                let mut layer = setting_flags::read(matches, $sections);
                if $plugins {
                    setting_flags::read_for_plugins(matches, &mut layer);
                }
                Ok(Self { layer })
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }

        impl $name {
            /// Adds what the flags say to a layer of flags.
            pub(super) fn add_to(&self, layer: &mut Layer) {
                *layer = std::mem::take(layer).or(self.layer.clone());
            }
        }
    };
}

// How log lines are written.
setting_options!(LogOptions, &["log"], Some("General options"), true, false);
// Options of the commands that use the database.
setting_options!(DatabaseOptions, &["database"], Some("Database options"), false, false);
// How `run` and `dev` work jobs.
setting_options!(WorkerOptions, &["tasks", "worker", "cron"], None, false, true);
// Which files of the tasks folder are loaded.
setting_options!(FolderOptions, &["tasks"], None, false, false);

impl GlobalOptions {
    /// Adds the environment and the settings file below what the command line says.
    pub(super) fn complete(self, mut flags: Layer) -> Result<Given, CliError> {
        self.log.add_to(&mut flags);
        let above = flags.or(Layer::from_environment(variable)?);
        let file = SettingsFile { named: self.config };
        Ok(Given { settings: above.clone().or(file.read()?), above, file })
    }
}

/// The settings, and what they were made of.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) settings: Layer,
    /// What counts before the file.
    pub(super) above: Layer,
    pub(super) file: SettingsFile,
}

/// The file that was named, or else that of the current folder, which need not exist.
#[derive(Debug)]
pub(super) struct SettingsFile {
    named: Option<PathBuf>,
}

impl SettingsFile {
    pub(super) fn path(&self) -> &Path {
        self.named.as_deref().unwrap_or(Path::new(SETTINGS_FILE))
    }

    pub(super) fn read(&self) -> Result<Layer, CliError> {
        match config::read_file(self.path()) {
            Err(config::FileError::Unreadable { error, .. })
                if self.named.is_none() && error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(Layer::default())
            }
            read => Ok(read?),
        }
    }

    /// What tells whether it has changed; `None` if it is not there.
    pub(super) fn state(&self) -> Option<FileKey> {
        std::fs::metadata(self.path()).ok().map(|metadata| FileKey::of(&metadata))
    }
}

/// A variable of the environment, if it is text.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Warns of variables that look like settings and are none.
pub(super) fn warn_of_unknown_variables() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (name, near) in config::unknown_variables(names) {
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        tracing::warn!(
            event = "unknown_variable",
            variable = name,
            "the variable {name} of the environment sets nothing{hint}"
        );
    }
}
