//! `taskbay check`: whether single files would be loaded.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, Ending, options::FolderOptions, output::note, plugins::show};
use crate::{
    config::{Layer, Purpose},
    tasks::{inspect_file, plugins_in, unknown_sections},
};

/// Say of single files whether they would be loaded
///
/// Each plugin is checked and loaded in a process of its own, as `taskbay run` would do it, and its tasks are listed; none of
/// them runs, and neither does its start-up. An executable is only looked at. The exit status is 1 if any of the files would be
/// refused.
///
/// With --strict it is 1 for a warning, too, and for a section [plugins.NAME] of the settings that is for none of the files, nor
/// for one in the tasks folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay check target/release/libsend_email.so
  taskbay check --json build/*.so                 in CI, before the files are delivered
  taskbay check --strict -C deploy/taskbay.toml build/*.so")]
pub(super) struct Check {
    /// Compiled plugins, or executable files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON: a list with one object per file
    #[arg(long)]
    json: bool,
    /// Take warnings for refusals, and check the names in [plugins.NAME]
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    trust: FolderOptions,
}

impl Check {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        self.trust.add_to(layer);
    }

    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let plugins = settings.plugins();
        let folder = settings.folder(Purpose::Production);
        let mut reports = Vec::new();
        for file in &self.files {
            reports.push(inspect_file(file, &folder, &plugins, super::plugins::program()).await);
        }
        let mut ending = show(&reports, self.json, None)?;
        if self.strict {
            // A folder that is not there, as where plugins are built, has no plugins.
            let mut names = plugins_in(&folder).unwrap_or_default();
            names.extend(reports.iter().map(|report| report.plugin.clone()));
            let unknown = unknown_sections(&plugins, &names);
            unknown.iter().for_each(|section| note(format_args!("error: {section}")));
            if !unknown.is_empty() || reports.iter().any(|report| !report.warnings.is_empty()) {
                ending = Ending::Refusals;
            }
        }
        Ok(ending)
    }
}
