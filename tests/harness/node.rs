//! The npm package `graphile-worker`, for the tests that lay our database beside its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
};

use tokio::process::Command;

const VERSION: &str = "0.18.0";

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
    let mut command = node();
    command
        .arg(packages().join("graphile-worker/dist/cli.js"))
        .args(["--schema-only", "--connection", url, "--schema", schema])
        .stdin(Stdio::null());
    command
}

/// A script of `tests/node`, ready to be run against a database.
pub(crate) fn script(name: &str, url: &str, schema: &str) -> Command {
    let mut command = node();
    command.arg(sources().join(name)).env("DATABASE_URL", url).env("GRAPHILE_WORKER_SCHEMA", schema);
    command
}

fn node() -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", packages()).env_remove("NODE_OPTIONS").kill_on_drop(true);
    command
}

/// The folder `node_modules` with the package in it, installed at the first use.
fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("graphile-worker-{VERSION}"));
        let packages = folder.join("node_modules");
        fs::create_dir_all(&folder).expect("create a folder for the npm packages");
        // Other test processes may want the same at this moment.
        let lock = fs::File::create(folder.join(".lock")).expect("create the lock file of the npm packages");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock the npm packages");
        if !is_installed(&packages) {
            install(&folder);
            assert!(is_installed(&packages), "npm did not install graphile-worker {VERSION}");
        }
        packages
    })
}

fn is_installed(packages: &Path) -> bool {
    let manifest = fs::read_to_string(packages.join("graphile-worker/package.json")).unwrap_or_default();
    // npm writes this file after all packages.
    let complete = packages.join(".package-lock.json").exists();
    complete
        && serde_json::from_str::<serde_json::Value>(&manifest).is_ok_and(|manifest| manifest["version"] == VERSION)
}

fn install(folder: &Path) {
    fs::copy(sources().join("package.json"), folder.join("package.json")).expect("copy package.json");
    let output = std::process::Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--no-package-lock"])
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("the tests need Node and npm ({error}): apt-get install nodejs npm"));
    assert!(output.status.success(), "npm install failed: {}", String::from_utf8_lossy(&output.stderr));
}
