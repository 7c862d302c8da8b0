//! The tasks of a folder without a database: graphile-worker's `getTasks` tests.

use std::path::Path;

use taskbay::{FolderTasks, config::PluginLookup, library::CallError};

use super::*;
use crate::harness::plugins::{install, install_plugin, tasks_folder};

async fn load(folder: &Path) -> Result<FolderTasks, taskbay::library::RunError> {
    let program = Path::new(env!("CARGO_BIN_EXE_taskbay"));
    within(FolderTasks::load(folder, PluginLookup::default(), program)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn gets_tasks_from_folder() {
    let folder = tasks_folder();
    install_plugin(folder.path(), "typed-plugin");
    install_plugin(folder.path(), "misbehaving");
    let tasks = load(folder.path()).await.unwrap();
    let names = tasks.names();
    assert!(names.contains(&"greet".to_owned()) && names.contains(&"fail".to_owned()), "{names:?}");
    within(tasks.call("greet", &json!({"to": "Ada", "times": 1}))).await.unwrap();
    let failed = within(tasks.call("fail", &json!({"message": "no luck"}))).await.unwrap_err();
    assert_eq!(failed.to_string(), "no luck");
    let unknown = tasks.call("gret", &json!({})).await.unwrap_err();
    assert!(matches!(&unknown, CallError::UnknownTask { known, .. } if known.contains("greet")), "{unknown}");
    within(tasks.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_is_an_error_that_names_it() {
    let folder = tasks_folder();
    install_plugin(folder.path(), "typed-plugin");
    install(folder.path(), "broken.so", b"no library");
    let error = load(folder.path()).await.unwrap_err();
    let taskbay::library::RunError::Host(taskbay::host::HostError::BrokenFiles(files)) = &error else {
        panic!("{error}")
    };
    assert_eq!(files.iter().map(|file| file.file.as_str()).collect::<Vec<_>>(), ["broken.so"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_prepared_to_run_plugins_is_not_started_again() {
    let error = taskbay::get_tasks(tasks_folder().path()).await.unwrap_err().to_string();
    assert!(error.contains("call taskbay::plugin_child first"), "{error}");
}
