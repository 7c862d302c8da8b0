//! The rules of the source tree that a machine can keep.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};

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

/// The names that follow `crate::` in some code, or `super::` as often as it takes to get there; `depth` is the number of modules
/// around the code.
fn used_modules(code: TokenStream, depth: usize, used: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = code.into_iter().collect();
    let ident = |place: usize| match tokens.get(place) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    };
    let colons = |place: usize| {
        let colon = |place| matches!(tokens.get(place), Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
        colon(place) && colon(place + 1)
    };
    let mut place = 0;
    while place < tokens.len() {
        let mut left = match ident(place).as_deref() {
            Some("crate") => 0,
            Some("super" | "self") => depth,
            _ => {
                if let TokenTree::Group(group) = &tokens[place] {
                    let is_module = place >= 2 && ident(place - 2).is_some_and(|word| word == "mod");
                    used_modules(group.stream(), depth + usize::from(is_module), used);
                }
                place += 1;
                continue;
            }
        };
        let begin = place;
        while colons(place + 1) {
            left = left.saturating_sub(usize::from(ident(place).is_some_and(|word| word == "super")));
            place += 3;
            if ident(place).is_none_or(|word| word != "super") {
                break;
            }
        }
        if place == begin {
            place += 1;
            continue;
        }
        if left > 0 {
            continue;
        }
        match tokens.get(place) {
            Some(TokenTree::Ident(module)) => drop(used.insert(module.to_string())),
            Some(TokenTree::Group(group)) => first_names(group.stream(), used),
            _ => {}
        }
        place += 1;
    }
}

/// The first name of each path in the braces of an import.
fn first_names(group: TokenStream, names: &mut BTreeSet<String>) {
    let mut is_first = true;
    for token in group {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == ',' => is_first = true,
            TokenTree::Ident(name) if is_first => {
                names.insert(name.to_string());
                is_first = false;
            }
            TokenTree::Group(inner) if is_first => first_names(inner.stream(), names),
            _ => is_first = false,
        }
    }
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
    for (path, text) in rust_files(&["host/src"]) {
        let module = module_of(&path);
        if module == "lib" {
            continue;
        }
        let (_, allowed) = MODULES
            .iter()
            .find(|(known, _)| *known == module)
            .unwrap_or_else(|| panic!("{path}: the module `{module}` has no row in the table of this test"));
        let inside = path.matches('/').count() - 1;
        let depth = if path.ends_with("/mod.rs") { inside - 1 } else { inside };
        let mut used = BTreeSet::new();
        used_modules(text.parse().expect("Rust"), depth, &mut used);
        for used in order.iter().filter(|known| used.contains(**known) && **known != module) {
            assert!(allowed.contains(used), "{path} uses `{used}`, which `{module}` must not know");
            not_used.retain(|row| *row != (module, *used));
        }
    }
    // It uses the library by the name of the crate.
    not_used.retain(|(module, _)| *module != "main");
    assert!(not_used.is_empty(), "rows that allow more than there is: {not_used:?}");
}

#[test]
fn imports_are_found_in_every_form() {
    let found = |code: &str, depth| {
        let mut used = BTreeSet::new();
        used_modules(code.parse().expect("Rust"), depth, &mut used);
        used.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(found("use crate::queue::Job;", 1), ["queue"]);
    assert_eq!(
        found("use crate::{events::{Event, Events}, plugin, queue::{self as q, Job}};", 2),
        ["events", "plugin", "queue"]
    );
    assert_eq!(found("fn f() -> crate::work::Pool { g(crate::tasks::h()) }", 1), ["tasks", "work"]);
    assert_eq!(found("use super::super::queue::Job; use super::claim;", 2), ["queue"]);
    assert_eq!(found("mod tests { use super::*; use super::super::super::queue; }", 2), ["queue"]);
    assert_eq!(found("// crate::work::x\nconst TEXT: &str = \"crate::queue::y\";", 1), Vec::<String>::new());
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
