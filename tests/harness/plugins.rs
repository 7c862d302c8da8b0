//! The example plugins, built once for all tests, and any number of builds of one of them.

use std::{
    env, fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// All plugins that tests use.
const PLUGINS: [&str; 10] = [
    "daily-digest",
    "hash-file",
    "import-csv",
    "ledger",
    "misbehaving",
    "raw-plugin",
    "row-ledger",
    "send-email",
    "typed-plugin",
    "webhook",
];

/// What a build's label looks like in the compiled file; ten digits follow.
const LABEL: &[u8] = b"taskbay-label:";
/// What a build does as a whole; eleven characters follow.
const MODE: &[u8] = b"taskbay-mode:";

/// The compiled file of an example plugin, by its crate's name.
#[track_caller]
pub fn plugin(krate: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(build_all);
    let file = folder.join(file_name(krate));
    assert!(file.exists(), "{} was not built: is {krate} in the list of plugins?", file.display());
    file
}

/// The bytes of another build of `misbehaving`: the same code with another label, which its `echo` task reports.
#[track_caller]
pub fn build_labelled(label: u32) -> Vec<u8> {
    another_build("misbehaving", label)
}

/// The bytes of another build of a plugin that has a label.
#[track_caller]
pub fn another_build(krate: &str, label: u32) -> Vec<u8> {
    let mut bytes = fs::read(plugin(krate)).expect("read the compiled plugin");
    patch(&mut bytes, LABEL, &format!("{label:010}"));
    bytes
}

/// The bytes of a build of `misbehaving` that does something to whoever loads, starts or stops it.
#[track_caller]
pub fn build_that(mode: &str) -> Vec<u8> {
    let mut bytes = fs::read(plugin("misbehaving")).expect("read the compiled plugin");
    patch(&mut bytes, MODE, &format!("{mode:-<11}"));
    bytes
}

/// Both.
#[track_caller]
pub fn build_labelled_that(label: u32, mode: &str) -> Vec<u8> {
    let mut bytes = build_labelled(label);
    patch(&mut bytes, MODE, &format!("{mode:-<11}"));
    bytes
}

#[track_caller]
fn patch(bytes: &mut [u8], marker: &[u8], value: &str) {
    let at = bytes.windows(marker.len()).position(|window| window == marker).expect("the plugin has the marker");
    bytes[at + marker.len()..][..value.len()].copy_from_slice(value.as_bytes());
}

/// The name of a plugin's file.
pub fn file_name(krate: &str) -> String {
    format!("lib{}.so", krate.replace('-', "_"))
}

/// Puts a plugin into a tasks folder.
#[track_caller]
pub fn install_plugin(folder: &Path, krate: &str) {
    install(folder, &file_name(krate), &fs::read(plugin(krate)).expect("read the compiled plugin"));
}

/// Takes it out again.
#[track_caller]
pub fn remove_plugin(folder: &Path, krate: &str) {
    fs::remove_file(folder.join(file_name(krate))).expect("remove a plugin");
}

/// Puts a file into a tasks folder as a careful deployment does: written beside, then renamed.
#[track_caller]
pub fn install(folder: &Path, name: &str, bytes: &[u8]) {
    let beside = folder.join(format!(".{name}.new"));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(&beside)
        .expect("create a file");
    file.write_all(bytes).expect("write a file");
    fs::rename(&beside, folder.join(name)).expect("rename a file");
}

/// A tasks folder that only its owner may write to.
#[track_caller]
pub fn tasks_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a tasks folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("set its permissions");
    folder
}

/// Builds the plugins, and gives the environment in which another process of these tests takes them as they are: Cargo would wait
/// there for every other build in this workspace.
pub fn plugins_are_built() -> [(&'static str, &'static str); 1] {
    plugin(PLUGINS[0]);
    [(BUILT, "yes")]
}

const BUILT: &str = "TASKBAY_TEST_PLUGINS_BUILT";

/// `cargo test` builds no cdylib, so the tests ask cargo for them, with the settings that they were built with themselves.
fn build_all() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_taskbay"));
    let profile_folder = program.parent().expect("the program is in a target folder");
    if env::var_os(BUILT).is_some() {
        return profile_folder.to_path_buf();
    }
    let target = profile_folder.parent().expect("the profile's folder is in a target folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet"]);
    cargo.args(PLUGINS.iter().chain(&["clock-jump"]).flat_map(|package| ["--package", package]));
    if profile_folder.ends_with("release") {
        cargo.arg("--release");
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace");
    let status = cargo.arg("--target-dir").arg(target).current_dir(workspace).status().expect("run cargo");
    assert!(status.success(), "the example plugins do not build");
    profile_folder.to_path_buf()
}
