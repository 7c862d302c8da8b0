//! The rules of the source tree that a machine can keep.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What each module of the host may use of the others.
const MAY_USE: [(&str, &[&str]); 8] = [
    ("queue", &["events"]),
    ("crontab", &[]),
    ("cron", &["crontab", "queue", "events"]),
    ("plugin", &["crontab", "events"]),
    ("tasks", &["plugin", "events", "config"]),
    ("work", &["tasks", "plugin", "queue", "events", "config"]),
    // It is wired as the command line is, and must not know it.
    (
        "library",
        &[
            "config",
            "host",
            "events",
            "tasks",
            "plugin",
            "queue",
            "migrate",
            "embedded_postgres",
            "work",
            "crontab",
            "cron",
        ],
    ),
    (
        "cli",
        &[
            "config",
            "host",
            "events",
            "tasks",
            "plugin",
            "queue",
            "migrate",
            "embedded_postgres",
            "work",
            "crontab",
            "cron",
        ],
    ),
];

/// The files that may hold `unsafe`.
const UNSAFE_ROOMS: [&str; 8] = [
    // The interface, and the plugin's side of it.
    "plugin-api/abi/src/",
    "plugin-api/macros/src/plugin.rs",
    "plugin-api/src/border.rs",
    "plugin-api/src/private.rs",
    // The host's: into the plugin, back from it, and three calls of the C library.
    "host/src/plugin/loader.rs",
    "host/src/plugin/host_table.rs",
    "host/src/plugin/libc_calls.rs",
    "host/src/plugin/image.rs",
];

/// Names that say nothing.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "types", "misc"];

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace")
}

/// All Rust files below some folders of the workspace, with their path in it.
fn rust_files(folders: &[&str]) -> Vec<(String, String)> {
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| workspace().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                waiting
                    .extend(fs::read_dir(&path).expect("list a folder").map(|entry| entry.expect("an entry").path()));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("read a source file");
            files.push((path.strip_prefix(workspace()).expect("inside").display().to_string(), text));
        }
    }
    assert!(!files.is_empty(), "no Rust file below {folders:?}");
    files
}

#[test]
fn modules_use_only_what_the_map_allows() {
    let all: Vec<&str> =
        MAY_USE.iter().map(|(module, _)| *module).chain(["host", "migrate", "embedded_postgres"]).collect();
    for (module, allowed) in MAY_USE {
        for (path, text) in rust_files(&[&format!("host/src/{module}")]) {
            for used in all.iter().filter(|used| **used != module && !allowed.contains(used)) {
                for form in [format!("crate::{used}::"), format!("crate::{{{used}::"), format!("\n    {used}::")] {
                    assert!(!text.contains(&form), "{path} uses `{used}`, which `{module}` must not know");
                }
            }
        }
    }
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    for (path, text) in rust_files(&["host/src", "plugin-api/abi", "plugin-api/macros", "plugin-api/src"]) {
        if UNSAFE_ROOMS.iter().any(|room| path.starts_with(room)) {
            continue;
        }
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            assert!(!line.contains("unsafe {") && !line.contains("unsafe impl"), "{path} has unsafe code: {line}");
        }
    }
}

/// A database may be in any encoding, and comments are sent to it as well.
#[test]
fn migrations_are_in_ascii() {
    for entry in fs::read_dir(workspace().join("migrations")).expect("list the migrations") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("read a migration");
        for (number, line) in text.lines().enumerate() {
            assert!(line.is_ascii(), "{}, line {}: not ASCII: {line}", path.display(), number + 1);
        }
    }
}

/// What is printed goes through `cli::output`, which escapes it, and does not panic where it cannot be written.
#[test]
fn nothing_prints_past_the_escaping() {
    for (path, text) in rust_files(&["host/src"]) {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for way in ["print!(", "println!(", "eprint!(", "eprintln!(", "dbg!("] {
                assert!(!line.contains(way), "{path} prints by itself instead of by `cli::output`: {line}");
            }
        }
    }
}

#[test]
fn files_say_what_they_hold_and_have_names_that_say_something() {
    for (path, text) in rust_files(&["host", "plugin-api", "example-plugins", "tests"]) {
        let stem = Path::new(&path).file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(!EMPTY_NAMES.contains(&stem.as_str()), "{path}: a name that says nothing");
        assert!(text.starts_with("//!"), "{path} does not begin with a line on what lives there");
    }
}

#[test]
fn files_are_short_enough_to_read() {
    for (path, text) in rust_files(&["host/src", "plugin-api", "example-plugins"]) {
        let lines = text.lines().count();
        assert!(lines <= 400, "{path} has {lines} lines: it wants to be two files, or a reason");
    }
}
