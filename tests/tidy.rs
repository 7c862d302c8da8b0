//! The rules of the source tree that a machine can keep.

mod imports;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use imports::{Code, Files};

/// What each module of the host may use of the others, from the ground up: a module stands below all modules that use it, so that
/// there are no cycles.
const MODULES: [(&str, &[&str]); 26] = [
    ("blocking", &[]),
    ("build_id", &[]),
    ("crontab", &[]),
    ("embedded_postgres", &[]),
    ("escape", &[]),
    ("parts", &[]),
    ("sync", &[]),
    // Nothing of plugins.
    ("queue", &["blocking"]),
    ("events", &["build_id", "parts", "queue"]),
    ("trouble", &["events", "queue"]),
    ("listener", &["events", "queue", "trouble"]),
    ("migrate", &["queue"]),
    ("start_up", &["events", "migrate", "queue", "trouble"]),
    ("admin", &["queue"]),
    ("worker_utils", &["admin", "migrate", "queue"]),
    ("cron", &["blocking", "crontab", "events", "queue", "trouble"]),
    // Nothing of Postgres.
    ("plugin", &["blocking", "build_id", "crontab", "events", "parts", "sync"]),
    ("config", &["crontab", "plugin", "queue"]),
    ("tasks", &["blocking", "config", "events", "parts", "plugin", "sync"]),
    ("status_socket", &["tasks"]),
    // The only module that knows Postgres and plugins.
    ("work", &["config", "events", "parts", "plugin", "queue", "tasks", "trouble"]),
    ("revision_watch", &["events", "migrate", "queue", "work"]),
    (
        "host",
        &[
            "blocking",
            "config",
            "cron",
            "events",
            "listener",
            "migrate",
            "parts",
            "plugin",
            "queue",
            "revision_watch",
            "start_up",
            "tasks",
            "work",
        ],
    ),
    // For programs with tasks of their own: wired as the command line is, without knowing it.
    ("library", &["config", "crontab", "events", "host", "parts", "plugin", "queue", "tasks", "work"]),
    (
        "cli",
        &[
            "admin",
            "blocking",
            "config",
            "embedded_postgres",
            "escape",
            "events",
            "host",
            "migrate",
            "parts",
            "plugin",
            "queue",
            "status_socket",
            "tasks",
        ],
    ),
    ("main", &["cli"]),
];

/// The files that may hold `unsafe`.
const UNSAFE_ROOMS: [&str; 9] = [
    // The interface, and the plugin's side of it.
    "plugin-api/abi/src/",
    "plugin-api/macros/src/plugin.rs",
    "plugin-api/src/ffi.rs",
    "plugin-api/src/private.rs",
    // The host's: into the plugin, back from it, and three calls of the C library.
    "host/src/plugin/loader.rs",
    "host/src/plugin/host_table.rs",
    "host/src/plugin/libc_calls.rs",
    "host/src/plugin/pre_exec.rs",
    "host/src/plugin/image.rs",
];

/// Files that may depend on each other, each group with the reason.
const CYCLES: &[(&[&str], &str)] = &[];

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

/// The module of the host in which a file is.
fn module_of(path: &str) -> &str {
    let inside = path.strip_prefix("host/src/").expect("a file of the host");
    inside.split('/').next().and_then(|first| first.split('.').next()).expect("a module")
}

/// Each file of the host with its code.
fn code_of_the_host() -> Vec<(String, Code)> {
    let code = |(path, text): (String, String)| {
        let mut module: Vec<String> =
            path.trim_start_matches("host/src/").trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if path.ends_with("/mod.rs") || path == "host/src/lib.rs" {
            module.pop();
        }
        (path, Code::read(module, &text))
    };
    rust_files(&["host/src"]).into_iter().map(code).collect()
}

#[test]
fn each_module_uses_only_modules_below_it_that_its_row_names() {
    let order: Vec<&str> = MODULES.iter().map(|(module, _)| *module).collect();
    for (place, (module, allowed)) in MODULES.iter().enumerate() {
        for used in *allowed {
            assert!(order[..place].contains(used), "`{module}` may use `{used}`, which does not stand before it");
        }
    }
    let mut not_used: BTreeSet<(&str, &str)> =
        MODULES.iter().flat_map(|(module, allowed)| allowed.iter().map(move |used| (*module, *used))).collect();
    for (path, code) in code_of_the_host() {
        let module = module_of(&path);
        if module == "lib" {
            continue;
        }
        let (_, allowed) = MODULES
            .iter()
            .find(|(known, _)| *known == module)
            .unwrap_or_else(|| panic!("{path}: the module `{module}` has no row in the table of this test"));
        let used = code.modules();
        for used in order.iter().filter(|known| used.contains(**known) && **known != module) {
            assert!(allowed.contains(used), "{path} uses `{used}`, which `{module}` must not know");
            not_used.retain(|row| *row != (module, *used));
        }
    }
    // It uses the library by the name of the crate.
    not_used.retain(|(module, _)| *module != "main");
    assert!(not_used.is_empty(), "rows that allow more than there is: {not_used:?}");
}

/// Files that depend on each other cannot be read, tested or moved one at a time. A type that both need, or the lower half of one
/// of them, belongs into a file of its own.
#[test]
fn no_files_depend_on_each_other() {
    // The program uses the crate by its name, and a file of unit tests may use everything.
    let is_code = |path: &str| path != "host/src/main.rs" && !path.ends_with("/tests.rs");
    let files = Files::new(code_of_the_host().into_iter().filter(|(path, _)| is_code(path)).collect());
    let arrows = files.arrows();
    let mut excused: BTreeSet<BTreeSet<&str>> =
        CYCLES.iter().map(|(files, _)| files.iter().copied().collect()).collect();
    for cycle in files.cycles() {
        if excused.remove(&cycle) {
            continue;
        }
        let within = arrows.iter().filter(|((from, to), _)| cycle.contains(from) && cycle.contains(to));
        let within: Vec<String> = within.map(|((from, to), names)| format!("{from} uses {names:?} of {to}")).collect();
        panic!("these files depend on each other:\n{}", within.join("\n"));
    }
    assert!(excused.is_empty(), "these files of the list do not depend on each other any more: {excused:?}");
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

#[test]
fn the_architecture_names_files_that_exist() {
    let text = fs::read_to_string(workspace().join("docs/architecture.md")).expect("read the architecture");
    let mut names = 0;
    // What stands between backticks is at each odd place.
    for name in text.split('`').skip(1).step_by(2).filter(|name| name.contains('/') && !name.contains([' ', '(', '\n']))
    {
        let places = ["", "host/src/", "docs/"].map(|folder| workspace().join(folder).join(name));
        let exists = places.iter().any(|place| place.exists() || place.with_extension("rs").exists());
        assert!(exists, "docs/architecture.md names {name}, which does not exist");
        names += 1;
    }
    assert!(names > 20, "{names} names are found");
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
