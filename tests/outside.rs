//! Plugins built outside of the repository, as users build them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::harness::{
    plugins::{install, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

/// A crate in a folder of its own.
struct Outside {
    folder: TempDir,
    name: String,
}

impl Outside {
    /// `manifest` as the README has it, with the version of a published crate. The crates are not published yet: they are
    /// taken by path, and nothing else is changed.
    fn new(name: &str, manifest: &str, source: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder outside the repository");
        let patches: String = [("taskbay-plugin", ""), ("taskbay-abi", "abi"), ("taskbay-plugin-macros", "macros")]
            .iter()
            .map(|(krate, below)| format!("{krate} = {{ path = {:?} }}\n", workspace().join("plugin-api").join(below)))
            .collect();
        fs::create_dir(folder.path().join("src")).expect("create src");
        let manifest = format!("{manifest}\n[patch.crates-io]\n{patches}");
        fs::write(folder.path().join("Cargo.toml"), manifest).expect("write Cargo.toml");
        fs::write(folder.path().join("src/lib.rs"), source).expect("write lib.rs");
        // The locked versions, so that nothing depends on what was released today.
        fs::copy(workspace().join("Cargo.lock"), folder.path().join("Cargo.lock")).expect("copy Cargo.lock");
        Self { folder, name: name.to_owned() }
    }

    fn cargo(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO"))
            .args(arguments)
            .arg("--quiet")
            .arg("--target-dir")
            .arg(target())
            .current_dir(self.folder.path())
            .output()
            .expect("run cargo")
    }

    fn build(&self) -> PathBuf {
        let built = self.cargo(&["build"]);
        assert!(built.status.success(), "it does not build: {}", String::from_utf8_lossy(&built.stderr));
        target().join(format!("debug/lib{}.so", self.name))
    }

    /// Runs one job of it.
    async fn runs(&self, task: &str, payload: &str) {
        let library = self.build();
        let checked = Taskbay::command("check").arg(&library).output();
        let printed = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.status.success() && printed.contains(task), "{printed}");

        let folder = tasks_folder();
        install(folder.path(), &format!("lib{}.so", self.name), &fs::read(&library).expect("read it"));
        let database = TestDatabase::installed().await;
        database.id_of("select (graphile_worker.add_job($1, $2::text::json)).id", &[&task, &payload]).await;
        let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
        assert!(host.ended().await.success());
        assert_eq!(host.events("job_done").len(), 1);
        database.wait_until_no_jobs().await;
    }
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace")
}

/// One for all of them, so that the dependencies are compiled once.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside")
}

fn readme() -> String {
    fs::read_to_string(workspace().join("README.md")).expect("read the README")
}

/// The first code block of a language that contains `needle`.
#[track_caller]
fn block<'a>(readme: &'a str, language: &str, needle: &str) -> &'a str {
    readme
        .split("\n```")
        .skip(1)
        .step_by(2)
        .filter_map(|fenced| fenced.strip_prefix(language)?.strip_prefix('\n'))
        .find(|code| code.contains(needle))
        .unwrap_or_else(|| panic!("the README has no {language} block with {needle}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_plugin_of_the_readme_builds_and_runs() {
    let readme = readme();
    let plugin =
        Outside::new("send_email", block(&readme, "toml", "taskbay-plugin"), block(&readme, "rust", "plugin!"));
    plugin.runs("send_email", r#"{"to": "ada@example.com", "subject": "Hello"}"#).await;
}

/// Features that change the layout of a `serde_json::Value`, which would crash if one crossed the border.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_with_other_features_of_serde_and_tokio_runs() {
    let manifest = r#"
[package]
name = "other-features"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[dependencies]
serde_json = { version = "1", features = ["arbitrary_precision", "preserve_order", "float_roundtrip"] }
taskbay-plugin = "0.1"
tokio = { version = "1", features = ["full"] }
"#;
    let source = r###"
use taskbay_plugin::{Json, prelude::*};

#[task]
async fn precise(payload: Json) -> TaskResult {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    let text = serde_json::to_string(&payload)?;
    if text != r#"{"b":123456789012345678901234567890,"a":1}"# {
        return Err(TaskError::discard(text));
    }
    Ok(())
}

plugin!(precise);
"###;
    let plugin = Outside::new("other_features", manifest, source);
    plugin.runs("precise", r#"{"b":123456789012345678901234567890,"a":1}"#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_would_abort_on_a_panic_does_not_compile() {
    let readme = readme();
    let manifest = format!("{}\n[profile.dev]\npanic = \"abort\"\n", block(&readme, "toml", "taskbay-plugin"));
    let plugin = Outside::new("send_email", &manifest, block(&readme, "rust", "plugin!"));
    let checked = plugin.cargo(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(!checked.status.success() && said.contains("panic"), "{said}");
}
