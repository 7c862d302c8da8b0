//! The npm package `graphile-worker`, for the tests that lay our database beside its own: the newest release that we keep to,
//! and all that npm has of those before it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
};

use tokio::process::Command;

/// A release of the package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// The one that `tests/node` pins, whose schema is revision 20.
    Newest,
    /// One of those that `tests/node-releases` pins, by its version.
    Older(&'static str),
}

/// The last release whose schema is revision 19.
pub(crate) const V0_17: Release = Release::Older("0.17.3");
/// The last release whose schema is revision 18; it does not work at a later one.
pub(crate) const V0_16: Release = Release::Older("0.16.6");

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
    let mut command = node(packages());
    command
        .arg(packages().join("graphile-worker/dist/cli.js"))
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
    let (packages, package) = match release {
        Release::Newest => (packages(), "graphile-worker".to_owned()),
        Release::Older(version) => (packages_of_releases(), format!("graphile-worker-{version}")),
    };
    let mut command = node(packages);
    command
        .arg(sources().join(name))
        .env("DATABASE_URL", url)
        .env("GRAPHILE_WORKER_SCHEMA", schema)
        .env("GRAPHILE_WORKER_PACKAGE", package);
    command
}

/// Installs the schema as an older release does, such as 0.13.0.
pub(crate) async fn install_schema_of(release: &str, url: &str, schema: &str) {
    let mut install = node(packages_of_releases());
    install.arg(releases().join("install.cjs")).arg(release);
    install.env("DATABASE_URL", url).env("GRAPHILE_WORKER_SCHEMA", schema);
    let output = install.output().await.expect("run graphile-worker");
    assert!(output.status.success(), "schema of {release}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Where the list of older releases is.
pub(crate) fn releases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/node-releases")
}

/// The SQL of the newest release, revision by revision, as it is written to that revision.
pub(crate) fn steps_of_the_package() -> Vec<String> {
    let folder = packages().join("graphile-worker/sql");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("list the SQL").map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).expect("read the SQL")).collect()
}

fn node(packages: &Path) -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", packages).env_remove("NODE_OPTIONS").kill_on_drop(true);
    command
}

/// The folder `node_modules` with the newest release in it, installed at the first use.
fn packages() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| installed("graphile-worker-newest", &sources()))
}

/// The folder `node_modules` with all older releases in it, each as `graphile-worker-` and its version, installed at the
/// first use.
fn packages_of_releases() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| installed("graphile-worker-releases", &releases()))
}

/// Packages in a folder of their own, put there by npm if they are not those that the lock file lists, whose hashes npm
/// checks.
fn installed(name: &str, sources: &Path) -> PathBuf {
    const FILES: [&str; 3] = ["package.json", "package-lock.json", ".npmrc"];
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let packages = folder.join("node_modules");
    fs::create_dir_all(&folder).expect("create a folder for the npm packages");
    // Other test processes may want the same at this moment.
    let lock = fs::File::create(folder.join(".lock")).expect("create the lock file of the npm packages");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("lock the npm packages");
    let same = |file: &&str| {
        let wanted = fs::read(sources.join(file)).expect("read a list of packages");
        fs::read(folder.join(file)).is_ok_and(|there| there == wanted)
    };
    // npm writes this file after all packages.
    let complete = packages.join(".package-lock.json");
    if !(FILES.iter().all(same) && complete.exists()) {
        let _ = fs::remove_file(&complete);
        for file in FILES {
            fs::copy(sources.join(file), folder.join(file)).expect("copy a list of packages");
        }
        let output = std::process::Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder)
            .output()
            .unwrap_or_else(|error| panic!("the tests need Node and npm ({error}): apt-get install nodejs npm"));
        assert!(output.status.success(), "npm failed: {}", String::from_utf8_lossy(&output.stderr));
        assert!(complete.exists(), "npm did not install the packages of {name}");
    }
    packages
}
