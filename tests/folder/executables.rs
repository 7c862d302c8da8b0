//! Executable files in the folder: each way in which one comes, changes and goes, and what is said of those that are none.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, os::unix::fs::PermissionsExt, path::Path};

use taskbay::events::{Event, FileRejection};

use super::{FILE, Watched, build_of};
use crate::harness::{
    plugins::{build_labelled, install},
    program::Taskbay,
};

/// In this order, each beginning with what the one before left; `$1` is a new script.
const OPERATIONS: [(&str, &str); 10] = [
    ("cp", "cp $1 task.sh"),
    ("cp over", "cp $1 task.sh"),
    ("install over", "install $1 task.sh"),
    ("mv", "mv $1 task.sh"),
    ("temporary file and mv", "cp $1 .task.sh.x8Kq; mv .task.sh.x8Kq task.sh"),
    ("rm and cp", "rm task.sh; cp $1 task.sh"),
    ("redirection", "cat $1 > task.sh"),
    ("ln -s", "mv $1 $1.1; rm task.sh; ln -s $1.1 task.sh"),
    ("ln -sf", "mv $1 $1.2; ln -sf $1.2 task.sh"),
    ("mv over a link", "mv $1 task.sh"),
];

fn script(label: usize) -> Vec<u8> {
    format!("#!/bin/sh\nexit {label}\n").into_bytes()
}

/// Waits until the file has these contents and is served. In between it may have been gone, and the link that
/// `ln -sf` makes under a random name and then renames is an executable as well.
async fn serves(folder: &mut Watched, what: &str, bytes: &[u8]) {
    loop {
        match folder.next().await {
            Event::PluginLoaded { build, file, .. } if file == "task.sh" && build.build == build_of(bytes) => return,
            Event::PluginLoaded { file, .. } if file != "task.sh" => {}
            Event::PluginRemoved { .. } | Event::FileSkipped { unexpected: false, .. } => {}
            other => panic!("{what}: expected the script to be loaded, but: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_brings_the_new_script() {
    let mut folder = Watched::start().await;
    for (label, (name, operation)) in OPERATIONS.into_iter().enumerate() {
        let bytes = script(label);
        let staged = folder.stage(&bytes);
        folder.shell(operation, &staged);
        serves(&mut folder, name, &bytes).await;
        assert_eq!(folder.map.load().get("task").expect("the task").generation.build(), build_of(&bytes));
    }
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_permission_to_execute_makes_the_task() {
    let mut folder =
        Watched::start_with(|path| fs::write(path.join("task.sh"), script(1)).expect("write"), |_| {}).await;
    // A copy of a plugin under another name, which compilers make executable as well.
    install(&folder.path, "libmisbehaving.so.old", &build_labelled(1));
    let skipped = folder.next().await;
    let Event::FileSkipped { file, reason, unexpected: false } = &skipped else { panic!("it is skipped: {skipped:?}") };
    assert!(file == "task.sh" && reason.contains("chmod +x it"), "{skipped:?}");
    let skipped = folder.next().await;
    let Event::FileSkipped { file, reason, unexpected: true } = &skipped else { panic!("it is skipped: {skipped:?}") };
    assert!(file == "libmisbehaving.so.old" && reason.contains("is a compiled library, not a program"), "{skipped:?}");
    folder.shell("chmod +x task.sh", &folder.path.clone());
    folder.loads("an executable", &script(1)).await;
    folder.shell("chmod -x task.sh", &folder.path.clone());
    assert!(matches!(folder.next().await, Event::FileSkipped { .. }));
    folder.removes("no executable").await;
    assert_eq!(folder.map.load().identifiers().len(), 0);
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_goes_before_an_executable_and_the_first_by_name_before_the_rest() {
    let fill = |path: &Path| {
        for name in ["echo.b", "echo.a", "echo.c"] {
            install(path, name, &[script(0), name.as_bytes().to_vec()].concat());
        }
    };
    let mut folder = Watched::start_with(fill, |_| {}).await;
    let of = |name: &str| build_of(&[script(0), name.as_bytes().to_vec()].concat());
    let mut shadowed = Vec::new();
    while shadowed.len() < 2 {
        match folder.next().await {
            Event::TaskShadowed { file, task, by } => shadowed.push((file, task, by)),
            Event::PluginLoaded { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let said = |file: &str, by: &str| (file.to_owned(), "echo".to_owned(), by.to_owned());
    assert_eq!(shadowed, [said("echo.b", "echo.a"), said("echo.c", "echo.a")]);
    let serving = |folder: &Watched| folder.map.load().get("echo").expect("somebody has it").generation.build();
    assert_eq!(serving(&folder), of("echo.a"));

    install(&folder.path, FILE, &build_labelled(1));
    folder.loads("the plugin", &build_labelled(1)).await;
    for file in ["echo.a", "echo.b", "echo.c"] {
        let event = folder.next().await;
        assert!(matches!(&event, Event::TaskShadowed { file: who, by, .. } if who == file && by == FILE), "{event:?}");
    }
    assert_eq!(serving(&folder), build_of(&build_labelled(1)));

    fs::remove_file(folder.path.join(FILE)).expect("remove the plugin");
    folder.removes("the plugin").await;
    let mut changed = folder.map.subscribe();
    while serving(&folder) != of("echo.a") {
        changed.changed().await.expect("the map lives");
    }
    fs::remove_file(folder.path.join("echo.a")).expect("remove the first");
    while serving(&folder) != of("echo.b") {
        changed.changed().await.expect("the map lives");
    }
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_or_cannot_run_is_refused_and_does_not_serve_on() {
    let mut folder = Watched::start().await;
    install(&folder.path, "task", &script(1));
    folder.loads("the script", &script(1)).await;
    fs::set_permissions(folder.path.join("task"), fs::Permissions::from_mode(0o775)).expect("chmod");
    folder.removes_or_refuses("is not safe: others may write to it (mode 0775); chmod go-w it").await;
    assert!(folder.map.load().get("task").is_none());
    // Nobody has to ask for another look at it.
    fs::set_permissions(folder.path.join("task"), fs::Permissions::from_mode(0o755)).expect("chmod");
    folder.loads("the script again", &script(1)).await;

    for (bytes, message) in [
        (b"#!/no/where\n".to_vec(), "needs the interpreter /no/where, which does not exist: install it"),
        (Vec::new(), "is empty: was the copy cut off?"),
    ] {
        install(&folder.path, "task", &bytes);
        folder.removes_or_refuses(message).await;
        assert!(folder.map.load().get("task").is_none());
        install(&folder.path, "task", &script(2));
        folder.loads("a mended script", &script(2)).await;
        install(&folder.path, "task", &script(1));
        folder.loads("the first script", &script(1)).await;
    }
    folder.stop().await;
}

impl Watched {
    /// The next events must be that the serving file was taken out of service and refused.
    async fn removes_or_refuses(&mut self, message: &str) {
        let (mut removed, mut refused) = (false, false);
        while !(removed && refused) {
            match self.next().await {
                Event::PluginRemoved { .. } => removed = true,
                Event::FileRejected(FileRejection { reason, serving: None, .. }) => {
                    assert!(reason.contains(message), "{reason}");
                    refused = true;
                }
                other => panic!("expected {message:?}, but: {other:?}"),
            }
        }
    }
}

#[test]
fn plugins_names_every_file_with_what_is_odd_about_it() {
    let folder = crate::harness::plugins::tasks_folder();
    let path = folder.path();
    install(path, "echo", &script(1));
    install(path, "echo.sh", &script(2));
    install(path, "lib two.sh", &script(2));
    install(path, FILE, &build_labelled(1));
    install(path, "libcopy.so.1", &fs::read("/proc/self/exe").expect("read this program")[..100]);
    fs::write(path.join("README.md"), "hello").expect("write");
    fs::write(path.join(OsStr::from_bytes(b"not\xffutf8")), "x").expect("write");
    install(path, "open.sh", &script(3));
    fs::set_permissions(path.join("open.sh"), fs::Permissions::from_mode(0o777)).expect("chmod");

    let output = Taskbay::command("plugins").arg(path).output();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for line in [
        "  warning: gets no jobs of echo, because libmisbehaving.so goes first: rename one of them",
        "  is neither a plugin (.so) nor executable; if it is to be a task, chmod +x it",
        "  the name of an executable file may have letters, digits, - and _, with dots in between: rename it",
        "  its name is not UTF-8, as a task's name must be: rename it",
        "  is not safe: others may write to it (mode 0777); chmod go-w it",
        "  is truncated: it should have",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    let lenient = Taskbay::command("plugins").arg(path).settings("[tasks]\nstrict_permissions = false").output();
    let said = String::from_utf8_lossy(&lenient.stdout).into_owned();
    assert!(said.contains("warning: is loaded although it is not safe: others may write to it (mode 0777)"), "{said}");
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod");
    let lenient = Taskbay::command("plugins").arg(path).settings("[tasks]\nstrict_permissions = false").output();
    let said = String::from_utf8_lossy(&lenient.stderr).into_owned();
    assert!(said.contains("is not safe: others may write to") && said.contains("(mode 0777); chmod go-w it"), "{said}");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");

    let json = Taskbay::command("plugins").arg(path).arg("--json").output();
    let reports: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let echo = reports.as_array().expect("a list").iter().find(|one| one["file"] == "echo").expect("echo");
    assert_eq!(
        (&echo["kind"], &echo["ok"], &echo["tasks"][0]["name"]),
        (&"executable".into(), &true.into(), &"echo".into())
    );
}
