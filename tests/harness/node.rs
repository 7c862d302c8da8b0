//! The npm package `graphile-worker` in three releases, for the tests that lay our database beside its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
};

use tokio::process::Command;

/// A pinned release of the package, by the name under which `tests/node/package.json` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// 0.18.0, whose schema is revision 20.
    Newest,
    /// 0.17.3, whose schema is revision 19.
    V0_17,
    /// 0.16.6, whose schema is revision 18, and which does not work at a later one.
    V0_16,
}

impl Release {
    fn package(self) -> &'static str {
        match self {
            Self::Newest => "graphile-worker",
            Self::V0_17 => "graphile-worker-0.17",
            Self::V0_16 => "graphile-worker-0.16",
        }
    }
}

/// Where the scripts and the list of packages are.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/node")
}

/// Installs the schema as the package does.
pub(crate) async fn install_schema(url: &str, schema: &str) {
    let mut install = schema_installer(url, schema);
    let output = install.output().await.expect("run graphile-worker");
    assert!(output.status.success(), "graphile-worker --schema-only: {}", String::from_utf8_lossy(&output.stderr));
}

/// The command that installs the schema and ends.
pub(crate) fn schema_installer(url: &str, schema: &str) -> Command {
    schema_installer_of(Release::Newest, url, schema)
}

/// The same of another release.
pub(crate) fn schema_installer_of(release: Release, url: &str, schema: &str) -> Command {
    let mut command = node();
    command
        .arg(packages().join(release.package()).join("dist/cli.js"))
        .args(["--schema-only", "--connection", url, "--schema", schema])
        .stdin(Stdio::null());
    command
}

/// A script of `tests/node`, ready to be run against a database.
pub(crate) fn script(name: &str, url: &str, schema: &str) -> Command {
    script_with(Release::Newest, name, url, schema)
}

/// The same with another release of the package.
pub(crate) fn script_with(release: Release, name: &str, url: &str, schema: &str) -> Command {
    let mut command = node();
    command
        .arg(sources().join(name))
        .env("DATABASE_URL", url)
        .env("GRAPHILE_WORKER_SCHEMA", schema)
        .env("GRAPHILE_WORKER_PACKAGE", release.package());
    command
}

fn node() -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", packages()).env_remove("NODE_OPTIONS").kill_on_drop(true);
    command
}

/// The folder `node_modules` with the packages in it, installed at the first use.
fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node-packages");
        fs::create_dir_all(&folder).expect("create a folder for the npm packages");
        // Other test processes may want the same at this moment.
        let lock = fs::File::create(folder.join(".lock")).expect("create the lock file of the npm packages");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock the npm packages");
        let wanted = fs::read_to_string(sources().join("package-lock.json")).expect("read the list of npm packages");
        let note = folder.join("installed");
        if fs::read_to_string(&note).ok().as_ref() != Some(&wanted) {
            install(&folder);
            fs::write(note, wanted).expect("note what is installed");
        }
        folder.join("node_modules")
    })
}

/// Exactly what the lock file says, whose hashes npm checks.
fn install(folder: &Path) {
    for file in ["package.json", "package-lock.json", ".npmrc"] {
        fs::copy(sources().join(file), folder.join(file)).expect("copy the list of npm packages");
    }
    let output = std::process::Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("the tests need Node and npm ({error}): apt-get install nodejs npm"));
    assert!(output.status.success(), "npm ci failed: {}", String::from_utf8_lossy(&output.stderr));
}
