//! What the compiler says to people who make mistakes, in crates of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds a plugin from these files and gives what the compiler said, which refuses it.
#[track_caller]
fn refused(name: &str, files: &[(&str, &str)]) -> String {
    let (built, said) = build(name, files);
    assert!(!built, "{said}");
    said
}

fn build(name: &str, files: &[(&str, &str)]) -> (bool, String) {
    let api = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("misuse").join(name);
    fs::create_dir_all(folder.join("src")).expect("a folder for the crate");
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\n\
         [dependencies]\ntaskbay-plugin = {{ path = {api:?} }}\n\n[workspace]\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest).expect("write Cargo.toml");
    fs::copy(api.join("../Cargo.lock"), folder.join("Cargo.lock")).expect("copy Cargo.lock");
    for (file, text) in files {
        fs::write(folder.join("src").join(file), text).expect("write a source file");
    }
    // One target folder for all who build crates in tests, so that the dependencies are compiled once.
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--target-dir"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside"))
        .current_dir(&folder)
        .output()
        .expect("run cargo");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_function_without_the_attribute_is_named_wherever_it_is() {
    let lib = "use taskbay_plugin::prelude::*;\nmod mail;\n/// Charges.\nasync fn charge(_ctx: Context) {}\n\
               #[task]\nasync fn refund() {}\nplugin!(charge, refund, mail::bounce);\n";
    let said = refused("forgotten", &[("lib.rs", lib), ("mail.rs", "pub async fn bounce() {}\n")]);
    for name in ["charge", "bounce"] {
        let expected = format!("error: `{name}` is not a task: put `#[task]` on the function `{name}`");
        assert!(said.contains(&expected), "{said}");
    }
    assert!(said.contains("--> src/lib.rs:7:9") && said.contains("--> src/lib.rs:7:25"), "{said}");
    assert!(!said.contains("E0573") && !said.contains("refund`"), "{said}");
}

#[test]
fn tasks_of_one_name_are_both_named() {
    let lib = "use taskbay_plugin::prelude::*;\nmod mail;\n#[task]\nasync fn send() {}\n#[task]\nasync fn other() {}\n\
               plugin!(send, other, mail::deliver);\n";
    let mail = "use taskbay_plugin::prelude::*;\n#[task(name = \"send\")]\npub(crate) async fn deliver() {}\n";
    let said = refused("two-of-one-name", &[("lib.rs", lib), ("mail.rs", mail)]);
    let expected =
        "the tasks `send` and `mail::deliver` have the same name: give one of them another by `#[task(name = \"…\")]`";
    assert!(said.contains(expected) && said.contains("--> src/lib.rs:7:22"), "{said}");
    assert!(!said.contains("other`"), "{said}");
}

#[test]
fn a_task_that_is_listed_twice_is_named() {
    let lib = "use taskbay_plugin::prelude::*;\n#[task]\nasync fn send() {}\nplugin!(send, send);\n";
    let said = refused("listed-twice", &[("lib.rs", lib)]);
    assert!(said.contains("error: the task `send` is listed twice") && said.contains("--> src/lib.rs:4:15"), "{said}");
}

#[test]
fn a_plugin_in_several_files_without_a_mistake_is_built() {
    let lib = "use taskbay_plugin::prelude::*;\nmod mail;\nuse mail::bounce;\nmod charge {\n\
               #[taskbay_plugin::task]\npub(crate) async fn charge() {}\n}\nplugin!(charge::charge, bounce, mail::send);\n";
    let mail = "use taskbay_plugin::prelude::*;\n#[cfg(unix)]\n#[task]\npub(crate) async fn bounce() {}\n\
                macro_rules! tasks { ($name:ident) => { #[task] pub(crate) fn $name() {} } }\ntasks!(send);\n";
    let (built, said) = build("no-mistake", &[("lib.rs", lib), ("mail.rs", mail)]);
    assert!(built, "{said}");
}
