//! Files that cannot be loaded, dropped over a plugin that serves: one clear line each, and the plugin serves on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::harness::{
    ledger::Ledger,
    plugins::{build_labelled, build_that, install, plugin, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay},
};

const FILE: &str = "libmisbehaving.so";

/// A host that serves build 1 of the misbehaving plugin.
struct Workplace {
    host: Running,
    folder: tempfile::TempDir,
    database: TestDatabase,
    ledger: Ledger,
    rejected: usize,
    jobs: usize,
}

impl Workplace {
    async fn new(arguments: &[&str]) -> Self {
        let (database, folder, ledger) = (TestDatabase::installed().await, tasks_folder(), Ledger::new());
        install(folder.path(), FILE, &build_labelled(1));
        let host = Taskbay::run(&database.url(), folder.path())
            .args(arguments)
            .settings("[plugins.misbehaving]\nstart_timeout = \"2s\"")
            .ledger(&ledger)
            .spawn();
        host.event("listening", |_| true).await;
        Self { host, folder, database, ledger, rejected: 0, jobs: 0 }
    }

    /// Waits for the next refusal, and for a job that runs on build 1 all the same.
    async fn is_refused(&mut self, what: &str, said: &[&str]) {
        self.rejected += 1;
        let line = self.host.nth_event(&["file_rejected"], self.rejected).await;
        let message = line["message"].as_str().unwrap();
        println!("{what}: {message}");
        for part in said {
            assert!(message.contains(part), "{what}: {message:?} does not say {part:?}");
        }
        assert!(message.starts_with(FILE), "{message}");
        assert!(message.len() < 500 && !message.contains('\n'), "not one clear line: {message}");
        assert!(line["serving"].is_string(), "{line}");
        self.serves().await;
        // Said once, not again with each look at the folder.
        assert_eq!(self.host.events("file_rejected").len(), self.rejected);
    }

    async fn serves(&mut self) {
        self.jobs += 1;
        self.database.add("echo", json!({})).await;
        let entries = self.ledger.wait_for(self.jobs).await;
        assert_eq!(entries.last().unwrap().label, "0000000001", "another build serves");
    }
}

/// A copy of the good file with some bytes changed.
fn patched(at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = build_labelled(2);
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

/// A library of the system, which every Linux has: the C library of this very process.
fn some_library() -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").expect("this process has a map");
    let libc = maps.split_whitespace().find(|word| word.contains("libc.so")).expect("this process uses libc");
    fs::read(libc).expect("read the C library")
}

/// The header's place in the file, by its first bytes and its size.
fn header_at(bytes: &[u8]) -> usize {
    let magic = [b"TASKBAY\0".as_slice(), &144_u32.to_ne_bytes()].concat();
    bytes.windows(magic.len()).position(|window| window == magic).expect("the plugin has a header")
}

async fn every_bad_file_is_refused(arguments: &[&str]) {
    let mut place = Workplace::new(arguments).await;
    let good = build_labelled(2);
    let header = header_at(&good);
    let half = good.len() / 2;
    let bad: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", Vec::new(), &["empty", "copy"]),
        ("text", b"hello, this is no plugin\n".to_vec(), &["not a compiled library"]),
        ("truncated head", good[..40].to_vec(), &["truncated"]),
        ("truncated", good[..half.min(600_000)].to_vec(), &["truncated", "copy it again"]),
        (
            "other CPU",
            patched(18, &if cfg!(target_arch = "aarch64") { [62, 0] } else { [183, 0] }),
            &["was built for", "--target"],
        ),
        ("32-bit", patched(4, &[1]), &["32-bit", "--target"]),
        ("no entry symbol", some_library(), &["no taskbay plugin", "TASKBAY_PLUGIN", "plugin!"]),
        ("other ABI version", patched(header + 12, &9_u32.to_ne_bytes()), &["interface 9", "speaks 1"]),
        ("newer ABI version", patched(header + 16, &7_u32.to_ne_bytes()), &["interface 1.7", "speaks 1.0"]),
        ("constructor that crashes", build_that("load-crash"), &["constructor crashed", "SIGSEGV"]),
        ("constructor that exits", build_that("load-exit"), &["exit(3)"]),
        ("constructor that hangs", build_that("load-hang"), &["did not finish loading within 2s"]),
        ("start-up that fails", build_that("start-fail"), &["start-up failed", "failed as asked"]),
        ("start-up that panics", build_that("start-panic"), &["start-up failed", "panicked as asked", ".rs:"]),
        ("start-up that hangs", build_that("start-hang"), &["start-up did not finish within 2s"]),
    ];
    for (what, bytes, said) in bad {
        install(place.folder.path(), FILE, &bytes);
        place.is_refused(what, said).await;
    }
    // A good build ends all that.
    install(place.folder.path(), FILE, &good);
    place.host.nth_event(&["plugin_loaded"], 2).await;
    place.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_file_is_refused_while_a_child_serves() {
    every_bad_file_is_refused(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_file_is_refused_in_process() {
    every_bad_file_is_refused(&["--in-process"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_signal_gives_a_refused_file_another_chance() {
    let mut place = Workplace::new(&[]).await;
    install(place.folder.path(), FILE, &build_that("start-fail"));
    place.is_refused("start-up that fails", &["start-up failed"]).await;
    place.host.signal(rustix::process::Signal::HUP);
    place.is_refused("tried again", &["start-up failed"]).await;
    place.host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_bad_files_at_once_cost_only_themselves() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install(folder.path(), "liba_text.so", b"text");
    install(folder.path(), "libb_crash.so", &build_that("load-crash"));
    install(folder.path(), "libc_library.so", &some_library());
    install(folder.path(), FILE, &build_labelled(1));
    // The same tasks as the one before, by file name.
    install(folder.path(), "libzz_twin.so", &build_labelled(2));
    let host = Taskbay::run(&database.url(), folder.path()).arg("--watch").spawn();
    host.event("worker_ready", |_| true).await;
    let mut files: Vec<Value> = host.events("file_rejected").into_iter().map(|line| line["file"].clone()).collect();
    files.sort_by_key(Value::to_string);
    assert_eq!(files, ["liba_text.so", "libb_crash.so", "libc_library.so", "libzz_twin.so"]);
    let twin = host.event("file_rejected", |line| line["file"] == "libzz_twin.so").await;
    let message = twin["message"].as_str().unwrap();
    assert!(message.contains(FILE) && message.contains("remove one"), "{message}");
    let id = database.add("nothing", json!({})).await;
    host.event("job_done", |line| line["job"] == id).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_watch_a_broken_file_at_the_start_is_the_end() {
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    install(folder.path(), FILE, b"text");
    let output = Taskbay::run(&database.url(), folder.path()).output();
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(printed.contains(FILE) && printed.contains("not starting") && printed.contains("--watch"), "{printed}");
}

/// A plugin compiled against another version of the interface that claims to be the same.
fn plugin_of_another_layout() -> Vec<u8> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace");
    let copy = tempfile::tempdir().expect("a folder for the altered workspace");
    copy_folder(&workspace.join("plugin-api"), &copy.path().join("plugin-api"));
    copy_folder(&workspace.join("tests/typed-plugin"), &copy.path().join("typed-plugin"));
    fs::copy(workspace.join("Cargo.lock"), copy.path().join("Cargo.lock")).expect("copy Cargo.lock");
    let manifest = fs::read_to_string(workspace.join("Cargo.toml")).expect("read Cargo.toml");
    let (_, rest) = manifest.split_once("[workspace.package]").expect("Cargo.toml has the section");
    // Without the profile, which is of no use here.
    let rest = rest.split("[profile.dev]").next().unwrap_or(rest);
    let members = "[workspace]\nresolver = \"3\"\nmembers = [\"plugin-api\", \"plugin-api/abi\", \"plugin-api/macros\", \"typed-plugin\"]\n\n";
    fs::write(copy.path().join("Cargo.toml"), format!("{members}[workspace.package]{rest}")).expect("write Cargo.toml");

    let abi = copy.path().join("plugin-api/abi/src/lib.rs");
    let source = fs::read_to_string(&abi).expect("read the interface");
    let altered = source.replace(
        "    pub run_at_us: i64,\n",
        "    pub run_at_us: i64,\n    /// Not in the interface.\n    pub extra: i64,\n",
    );
    assert!(source != altered, "the interface has changed: this test has to follow");
    fs::write(&abi, altered).expect("alter the interface");

    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "typed-plugin", "--target-dir"])
        .arg(&target)
        .current_dir(copy.path())
        .status()
        .expect("run cargo");
    assert!(built.success(), "the altered plugin does not build");
    fs::read(target.join("debug/libtyped_plugin.so")).expect("read the altered plugin")
}

fn copy_folder(from: &Path, to: &PathBuf) {
    fs::create_dir_all(to).expect("create a folder");
    for entry in fs::read_dir(from).expect("list a folder").map(|entry| entry.expect("an entry")) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copy a file");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_layout_is_found_before_the_first_call() {
    let altered = plugin_of_another_layout();
    let database = TestDatabase::installed().await;
    let folder = tasks_folder();
    let file = "libtyped_plugin.so";
    install(folder.path(), file, &fs::read(plugin("typed-plugin")).expect("read the plugin"));
    let host = Taskbay::run(&database.url(), folder.path()).spawn();
    host.event("worker_ready", |_| true).await;

    install(folder.path(), file, &altered);
    let line = host.event("file_rejected", |_| true).await;
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("interface types differ") && message.contains("rebuild it"), "{message}");
    assert!(message.len() < 800 && !message.contains('\n'), "not one clear line: {message}");
    let id = database.add("greet", json!({"to": "Ada", "times": 1})).await;
    host.event("job_done", |line| line["job"] == id).await;
    host.stop().await;
}
