//! The README's example plugin, copied out of the repository as a reader would, loads and runs.

use std::{fs, path::Path, process::Command};

use crate::harness::{
    plugins::{install, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

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
async fn the_example_plugin_of_the_readme_builds_outside_the_repository_and_runs() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace");
    let readme = fs::read_to_string(workspace.join("README.md")).expect("read the README");
    let source = block(&readme, "rust", "plugin!");
    // Not published yet: the crates are taken by path, and nothing else is changed.
    let manifest = format!(
        "{}\n[patch.crates-io]\ntaskbay-plugin = {{ path = {:?} }}\ntaskbay-abi = {{ path = {:?} }}\ntaskbay-plugin-macros = {{ path = {:?} }}\n",
        block(&readme, "toml", "taskbay-plugin"),
        workspace.join("plugin-api"),
        workspace.join("plugin-api/abi"),
        workspace.join("plugin-api/macros"),
    );

    let outside = tempfile::tempdir().expect("a folder outside the repository");
    fs::create_dir(outside.path().join("src")).expect("create src");
    fs::write(outside.path().join("Cargo.toml"), manifest).expect("write Cargo.toml");
    fs::write(outside.path().join("src/lib.rs"), source).expect("write lib.rs");
    // The locked versions, so that what the workspace has compiled serves here too.
    fs::copy(workspace.join("Cargo.lock"), outside.path().join("Cargo.lock")).expect("copy Cargo.lock");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--target-dir"])
        .arg(&target)
        .current_dir(outside.path())
        .status()
        .expect("run cargo");
    assert!(built.success(), "the README's plugin does not build");

    let library = fs::read_dir(target.join("debug"))
        .expect("list the built files")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "so"))
        .expect("a compiled plugin");
    let folder = tasks_folder();
    install(folder.path(), library.file_name().unwrap().to_str().unwrap(), &fs::read(&library).expect("read it"));

    let checked = Taskbay::command("check").arg(&library).output();
    let printed = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success() && printed.contains("send_email"), "{printed}");

    let database = TestDatabase::installed().await;
    let client = database.client().await;
    let payload = r#"{"to": "ada@example.com", "subject": "Hello"}"#;
    client
        .execute("select graphile_worker.add_job('send_email', $1::text::json)", &[&payload])
        .await
        .expect("add a job");
    let mut host = Taskbay::run(&database.url(), folder.path()).arg("--once").spawn();
    assert!(host.ended().await.success());
    database.wait_until_no_jobs().await;
    assert_eq!(host.events("job_done").len(), 1);
}
