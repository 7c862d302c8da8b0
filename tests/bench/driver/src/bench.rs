//! What all rows need: the server, the programs, and a folder.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::AtomicU32,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::{process::Command, sync::Mutex};

use crate::{options::Options, server::Server, sizes::Sizes, store::Store, workload::Workload};

/// One comparison.
#[derive(Debug)]
pub struct Bench {
    // Fields are dropped in this order: the server has its files in the folder.
    pub server: Server,
    folder: TempDir,
    pub paths: Paths,
    pub sizes: Sizes,
    /// How long a drain may take.
    pub limit: Duration,
    /// Databases that copies are made of.
    pub(crate) templates: Mutex<HashMap<(Store, Option<Workload>), String>>,
    /// How many databases there have been.
    pub(crate) count: AtomicU32,
    /// What `taskbay run --help` and `taskbay add --help` say, because not every build knows every flag.
    help: String,
}

/// Where the programs are.
#[derive(Debug)]
pub struct Paths {
    pub taskbay: PathBuf,
    pub peers: PathBuf,
    pub plugin: PathBuf,
    pub node_scripts: PathBuf,
    pub node_modules: PathBuf,
}

impl Bench {
    pub async fn start(options: &Options) -> Result<Self> {
        let in_repository = |path: &str| options.repository.join(path);
        let paths = Paths {
            taskbay: in_repository("target/release/taskbay"),
            peers: in_repository("tests/bench/target/release/peers"),
            plugin: in_repository("tests/bench/target/release/libbench_tasks.so"),
            node_scripts: in_repository("tests/bench/node"),
            node_modules: options.node_modules.clone(),
        };
        for path in [&paths.taskbay, &paths.peers, &paths.plugin, &paths.node_modules] {
            ensure!(path.exists(), "{} is missing: run scripts/bench, which makes it", path.display());
        }
        let folder = tempfile::Builder::new().prefix("taskbay-bench-").tempdir().context("make a folder")?;
        // The server's account must get through to its own folder.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let server = Server::start(&options.postgres, &folder.path().join("postgres"))?;
        let mut help = String::new();
        for subcommand in ["run", "add"] {
            let output = Command::new(&paths.taskbay).args([subcommand, "--help"]).output().await?;
            help.push_str(&String::from_utf8_lossy(&output.stdout));
        }
        Ok(Self {
            server,
            folder,
            paths,
            sizes: Sizes::of(options.jobs),
            limit: options.limit(),
            templates: Mutex::default(),
            count: AtomicU32::new(0),
            help,
        })
    }

    /// For files of the run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether this build of Taskbay knows a flag of `run` or `add`.
    pub fn taskbay_knows(&self, flag: &str) -> bool {
        self.help.contains(flag)
    }

    /// A program with nothing of this one's surroundings that could be a setting. It is killed with this process, and when
    /// nobody waits for it any more.
    pub fn program(&self, path: &Path, database_url: &str) -> Command {
        let mut command = Command::new(path);
        command.env_clear().current_dir(self.folder()).env("DATABASE_URL", database_url).kill_on_drop(true);
        for name in ["PATH", "HOME", "LANG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: between fork and exec only this system call is made.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        // The terminal's Ctrl-C is for this process, which then stops the others.
        command.process_group(0);
        command
    }

    /// Node, for a script of `tests/bench/node`.
    pub fn node(&self, script: &str, database_url: &str) -> Command {
        let mut command = self.program(Path::new("node"), database_url);
        command.env("NODE_PATH", &self.paths.node_modules).env("NODE_ENV", "production");
        command.arg(self.paths.node_scripts.join(script));
        command
    }
}
