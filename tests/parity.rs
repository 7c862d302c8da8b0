//! `docs/parity.md` names a test for each promise, and the test is there.

use std::{collections::HashSet, fs, path::Path, process::Command};

/// The names of this target's tests, as the test program lists them.
fn tests_of_this_target() -> HashSet<String> {
    let program = std::env::current_exe().expect("the path of this program");
    let output = Command::new(program).args(["--list", "--format", "terse"]).output().expect("list the tests");
    let text = String::from_utf8(output.stdout).expect("names are text");
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Whether a source file of the workspace, named by its path, has a function of this name.
fn source_has(path: &str, function: &str) -> bool {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {function}(")))
}

/// The texts between backticks in tables that name tests: `module::test_name`, or `path/file.rs: test_name` for those beside the code.
#[test]
fn each_test_that_the_table_names_exists() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/parity.md");
    let page = fs::read_to_string(page).expect("read docs/parity.md");
    let tests = tests_of_this_target();
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let mut named = 0;
    let mut missing = Vec::new();
    for text in rows.flat_map(|row| row.split('`').skip(1).step_by(2)) {
        let exists = match text.split_once(".rs: ") {
            Some((path, function)) => source_has(&format!("{path}.rs"), function),
            // Items of crates are written with the crate's name.
            None if ["taskbay::", "tokio::"].iter().any(|krate| text.starts_with(krate)) => continue,
            None if text.contains("::") && !text.contains(['(', ' ']) && text.starts_with(char::is_lowercase) => {
                tests.contains(text)
            }
            None => continue,
        };
        named += 1;
        if !exists {
            missing.push(text);
        }
    }
    assert!(missing.is_empty(), "docs/parity.md names tests that do not exist: {missing:#?}");
    assert!(named > 100, "only {named} names of tests were found: is the table still written as this test reads it?");
}
