//! `taskbay check`: whether single files would be loaded.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, Ending, options::FolderOptions, plugins::show};
use crate::{
    config::{Layer, Purpose},
    tasks::inspect_file,
};

/// Say of single files whether they would be loaded
///
/// Each plugin is checked and loaded in a process of its own, as `taskbay run` would do it, and its tasks are listed; none of
/// them runs, and neither does its start-up. An executable is only looked at. The exit status is 1 if any of the files would be refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay check target/release/libsend_email.so
  taskbay check --json build/*.so                 in CI, before the files are delivered")]
pub(super) struct Check {
    /// Compiled plugins, or executable files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON: a list with one object per file
    #[arg(long)]
    json: bool,
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
        show(&reports, self.json)
    }
}
