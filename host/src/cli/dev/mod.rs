//! `taskbay dev`: for the author of tasks. Builds plugin crates, runs them, and does so again at each save.

mod build;
mod crates;
mod sources;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Instant,
};

use clap::Args;
use thiserror::Error;
use tracing::{error, info};

use self::{build::Installed, crates::Workspace, sources::Sources};
use super::{
    CliError, Ending,
    config::effective,
    database,
    options::{DatabaseOptions, WorkerOptions, variable},
    signals::{self, Hangup},
};
use crate::{
    config::{self, Layer, Purpose},
    embedded_postgres::EmbeddedPostgres,
    events::Events,
    host::{self, Control, Mode},
    status_socket,
};

/// Build plugin crates, work jobs with them, and rebuild at each save
///
/// Finds the plugin crates in DIR: those of crate-type cdylib that depend on taskbay-plugin. Builds them with cargo, copies
/// the compiled plugins into DIR/.taskbay/tasks, and works jobs with them as `taskbay run --watch` does. At each save of a
/// source file they are built again and replaced; jobs that run finish on the build before. If a build fails, the compiler
/// says why, and the build before goes on.
///
/// Unless a database is configured, a private Postgres is started in DIR/.taskbay/postgres; it is made at the first start,
/// and its data are kept. While it runs, `taskbay add` in this folder finds it, and DIR/.taskbay/postgres/url holds its
/// address for other programs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay dev                                     the crates in this folder
  taskbay dev plugins --release
  taskbay add send_email '{\"to\": \"ada@example.com\", \"subject\": \"Hi\"}'      in another terminal
  psql \"$(cat .taskbay/postgres/url)\"")]
pub(super) struct Dev {
    /// Where the plugin crates are
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Build with cargo's release profile
    #[arg(long)]
    release: bool,
    #[command(flatten)]
    worker: WorkerOptions,
    #[command(flatten)]
    database: DatabaseOptions,
}

/// Why development cannot begin. What goes wrong later is a line in the log.
#[derive(Debug, Error)]
pub enum DevError {
    #[error("could not find the folder {}: {error}", .dir.display())]
    NoFolder { dir: PathBuf, error: io::Error },
    #[error(
        "there is no plugin crate in {}: make one with `cargo new --lib NAME`, set crate-type = [\"cdylib\"] in its section \
         [lib], and let it depend on taskbay-plugin",
        .0.display()
    )]
    NoCrates(PathBuf),
    #[error("could not run cargo: {0}; install Rust from https://rustup.rs, or put cargo on PATH")]
    NoCargo(io::Error),
    #[error("cargo cannot read {}: {reason}", .manifest.display())]
    Manifest { manifest: PathBuf, reason: String },
    #[error("could not put the compiled plugin at {}: {error}", .path.display())]
    Install { path: PathBuf, error: io::Error },
    #[error("could not watch the source files: {0}")]
    Watch(#[from] notify::Error),
}

impl Dev {
    pub(super) fn add_to(&self, layer: &mut Layer) {
        self.worker.add_to(layer);
        self.database.add_to(layer);
    }

    pub(super) async fn execute(self, settings: Layer) -> Result<Ending, CliError> {
        let control = Control::default();
        let received = signals::listen(&control, Hangup::Stop).map_err(CliError::system("listen for signals"))?;
        let dir = self.dir.canonicalize().map_err(|error| DevError::NoFolder { dir: self.dir.clone(), error })?;
        let tasks = dir.join(".taskbay/tasks");
        let bench = Bench::set_up(&dir, &tasks, self.release).await?;
        let building = control.parts.spawn("builder", bench.build_at_each_save());

        let server = if config::is_configured(&settings, variable) { None } else { Some(start_server(&dir).await?) };
        let database = database::settings(&settings, server.as_ref())?;
        let layer = Layer { tasks_directory: Some(tasks), ..database::known_to_plugins(settings, server.as_ref()) };
        control.show_settings(effective(&layer, server.as_ref(), Purpose::Development)?);
        let mut settings = layer.into_working_settings(database, Purpose::Development)?;
        settings.folder.filled_by_builds = true;
        info!(event = "dev_ready", "add a job with: taskbay add TASK '{{\"name\": \"value\"}}'");
        control.parts.spawn("status socket", status_socket::serve(control.folder.clone()));
        let ended = host::run(settings, Mode::Continuous, true, Events::default(), control).await;

        building.abort();
        if let Some(server) = server {
            database::stop(server).await;
        }
        ended?;
        Ok(received.get().map_or(Ending::Success, Ending::Signal))
    }
}

async fn start_server(dir: &Path) -> Result<EmbeddedPostgres, CliError> {
    let server = EmbeddedPostgres::start(dir).await?;
    let did = if server.was_running() { "joined the Postgres that runs in" } else { "started a private Postgres in" };
    let folder = server.folder().display();
    info!(event = "embedded_postgres", "{did} {folder}; look into it with: psql \"$(cat {folder}/url)\"");
    Ok(server)
}

/// What is built, where it goes, and what is watched for changes.
#[derive(Debug)]
struct Bench {
    dir: PathBuf,
    tasks: PathBuf,
    release: bool,
    workspaces: Vec<Workspace>,
    sources: Sources,
}

impl Bench {
    async fn set_up(dir: &Path, tasks: &Path, release: bool) -> Result<Self, DevError> {
        let workspaces = crates::find(dir).await?;
        if workspaces.is_empty() {
            return Err(DevError::NoCrates(dir.to_owned()));
        }
        build::prepare_folder(tasks, &workspaces)?;
        let mut sources = Sources::new()?;
        sources.follow_crates(&workspaces);
        let bench = Self { dir: dir.to_owned(), tasks: tasks.to_owned(), release, workspaces, sources };
        let names: Vec<&str> = bench.workspaces.iter().flat_map(Workspace::names).collect();
        info!(event = "dev_building", "building {} in {}, and again at each save", names.join(", "), dir.display());
        Ok(bench)
    }

    /// Goes on until it is aborted, which also ends a cargo that is at work.
    async fn build_at_each_save(mut self) {
        loop {
            self.build().await;
            let changed = self.sources.changed().await;
            if changed.iter().any(|path| path.ends_with("Cargo.toml")) {
                self.look_again().await;
            }
        }
    }

    async fn build(&mut self) {
        for workspace in &self.workspaces {
            let begun = Instant::now();
            match build::build(workspace, &self.tasks, self.release).await {
                Ok((status, installed)) => {
                    self.sources.follow_files(&installed);
                    self.report(workspace, status, &installed, begun);
                }
                Err(error) => error!(event = "build_failed", "{error}"),
            }
        }
    }

    /// A changed manifest may bring or take crates.
    async fn look_again(&mut self) {
        match crates::find(&self.dir).await {
            Ok(workspaces) => {
                self.workspaces = workspaces;
                self.sources.follow_crates(&self.workspaces);
                if let Err(error) = build::prepare_folder(&self.tasks, &self.workspaces) {
                    error!(event = "build_failed", "{error}");
                }
            }
            Err(error) => error!(event = "build_failed", "{error}; going on with the crates as they were"),
        }
    }

    fn report(&self, workspace: &Workspace, status: ExitStatus, installed: &[Installed], begun: Instant) {
        let took = begun.elapsed();
        let new: Vec<&str> =
            installed.iter().filter(|plugin| plugin.changed).map(|plugin| plugin.name.as_str()).collect();
        if !new.is_empty() {
            info!(event = "built", took_ms = took.as_millis() as u64, "built {}", new.join(", "));
        }
        if !status.success() {
            let root = workspace.root.display();
            let serving = workspace.crates.iter().any(|plugin| self.tasks.join(&plugin.library).exists());
            let meanwhile = if serving {
                "what was built before goes on"
            } else {
                "its tasks are there after the first build that succeeds"
            };
            error!(
                event = "build_failed",
                "the build in {root} failed, see above; it is built again at the next save, and {meanwhile}"
            );
        } else if new.is_empty() {
            info!(event = "built", took_ms = took.as_millis() as u64, "built, and nothing has changed");
        }
    }
}
