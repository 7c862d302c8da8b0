//! `taskbay config`: which settings are in force, and where each comes from.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

use super::{
    CliError, Ending, database,
    options::{DatabaseOptions, WorkerOptions, variable},
    output::{Text, note, print_file},
    print, print_json,
};
use crate::{
    config::{self, EffectiveSetting, Layer, Origin, Purpose},
    embedded_postgres::EmbeddedPostgres,
    tasks::{plugins_in, unknown_sections},
};

/// Print the settings that are in force, and where each comes from
///
/// Takes the flags of `taskbay run` and prints what it would go by: as a settings file, with the flag, the variable or the
/// line of the file behind each setting. Passwords are not shown. The exit status is 1 if a section [plugins.NAME] is for no file in
/// the tasks folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay config
  taskbay config -j 20 --json
  taskbay config --example > taskbay.toml           every setting with its meaning and default, commented out")]
pub(super) struct Config {
    /// The folder with the compiled plugins [default: tasks]
    #[arg(value_name = "TASKS_DIR")]
    folder: Option<PathBuf>,
    /// As `taskbay run --watch` and `taskbay dev` have them
    #[arg(short, long)]
    watch: bool,
    /// Print JSON: a list with one object per setting
    #[arg(long)]
    json: bool,
    /// Print a settings file with every setting at its default, commented out
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    example: bool,
    #[command(flatten)]
    worker: WorkerOptions,
    #[command(flatten)]
    database: DatabaseOptions,
}

impl Config {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        set_folder(layer, self.folder.as_ref());
        self.worker.add_to(layer);
        self.database.add_to(layer);
    }

    pub(super) async fn execute(self, layer: Layer) -> Result<Ending, CliError> {
        if self.example {
            print_file(config::example_file().as_bytes())?;
            return Ok(Ending::Success);
        }
        let configured = config::is_configured(&layer, variable);
        let database = if configured {
            database::settings(&layer, None)?
        } else {
            // Everything but the address can be told without one.
            let somewhere = Layer { connection: Some("postgres://localhost".to_owned()), ..layer.clone() };
            database::settings(&somewhere, None)?
        };
        let purpose = if self.watch { Purpose::Development } else { Purpose::Production };
        let settings = layer.clone().into_settings(database, purpose);
        let list = config::effective_settings(&layer, &settings, configured, variable);
        if self.json { print_json(&to_json(&list)) } else { print(to_toml(&list)) }?;
        config::check(&layer, &settings)?;
        // Where the folder is not there, nothing is known of its plugins.
        let unknown = plugins_in(&settings.folder)
            .map_or_else(|_| Vec::new(), |names| unknown_sections(&settings.plugins, &names));
        unknown.iter().for_each(|section| note(format_args!("error: {section}")));
        Ok(if unknown.is_empty() { Ending::Success } else { Ending::Refusals })
    }
}

/// The settings of a host that works the database of these, or that of the embedded server.
pub(super) fn effective(
    layer: &Layer,
    server: Option<&EmbeddedPostgres>,
    purpose: Purpose,
) -> Result<Vec<EffectiveSetting>, CliError> {
    let settings = layer.clone().into_settings(database::settings(layer, server)?, purpose);
    let variable = |name: &str| if server.is_none() { variable(name) } else { None };
    Ok(config::effective_settings(layer, &settings, true, variable))
}

/// Sets the tasks folder to the one that was named on the command line.
pub(super) fn set_folder(layer: &mut Layer, folder: Option<&PathBuf>) {
    if let Some(folder) = folder {
        layer.tasks_directory = Some(folder.clone());
        layer.note("tasks.directory", Origin::Flag("TASKS_DIR".to_owned()));
    }
}

fn to_toml(list: &[EffectiveSetting]) -> Text {
    let mut text = Text::default();
    let mut section = "";
    let line = |setting: &EffectiveSetting| match &setting.value {
        Some(value) => format!("{} = {value}", setting.key),
        None => format!("# {}: {}", setting.key, setting.without),
    };
    let width =
        list.iter().map(|setting| line(setting).chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
    for setting in list {
        if setting.section != section {
            if !section.is_empty() {
                text.line("");
            }
            text.line(format_args!("[{}]", setting.section));
            section = &setting.section;
        }
        text.line(format_args!("{:width$}  # {}", line(setting), setting.origin));
    }
    text
}

fn to_json(list: &[EffectiveSetting]) -> Vec<Json> {
    let object = |setting: &EffectiveSetting| {
        let (source, place, line) = match &setting.origin {
            Origin::Flag(name) => ("flag", Some(name.clone()), None),
            Origin::Variable(name) => ("variable", Some(name.clone()), None),
            Origin::File { path, line } => ("file", Some(path.display().to_string()), Some(*line)),
            Origin::Program => ("program", None, None),
            Origin::Default => ("default", None, None),
        };
        let value = setting.value.as_ref().map_or(Json::Null, config::Value::to_json);
        json!({
            "section": setting.section, "key": setting.key, "value": value, "source": source, "place": place, "line": line,
        })
    };
    list.iter().map(object).collect()
}
