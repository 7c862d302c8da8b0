//! Folders below the tasks folder: they come, move and go with all that is in them.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use taskbay::events::Event;

use super::{Watched, build_of, make_folder};
use crate::harness::plugins::{build_labelled, install};

fn script(label: &str) -> Vec<u8> {
    format!("#!/bin/sh\nexit 0 {label}\n").into_bytes()
}

/// Waits until exactly these tasks are in the map.
async fn has(folder: &Watched, names: &[&str]) {
    let mut changed = folder.map.subscribe();
    let wait = async {
        loop {
            let map = folder.map.load();
            if map.identifiers().eq(names.iter().copied()) {
                return;
            }
            changed.changed().await.expect("the map lives");
        }
    };
    let waited = tokio::time::timeout(crate::harness::program::DEADLINE, wait).await;
    assert!(waited.is_ok(), "wanted {names:?}, but: {:?}", folder.map.load().identifiers().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_named_by_their_folders_and_what_breaks_a_rule_is_named() {
    let fill = |path: &Path| {
        for folder in ["a", "a/b", "a/.hidden", "a/not this", "elsewhere"] {
            make_folder(&path.join(folder));
        }
        for file in ["top.sh", "a/x.test.py", "a/b/y", "a/.hidden/no", "a/not this/no", "a/.no", "elsewhere/z"] {
            install(
                path.join(file).parent().expect("a folder"),
                Path::new(file).file_name().and_then(|name| name.to_str()).expect("a name"),
                &script(file),
            );
        }
        std::os::unix::fs::symlink("elsewhere", path.join("link")).expect("make a link");
        std::os::unix::fs::symlink("../elsewhere/z", path.join("a/linked")).expect("make a link");
        install(&path.join("a"), "libmisbehaving.so", &build_labelled(1));
    };
    let mut folder = Watched::start_with(fill, |_| {}).await;
    let map = folder.map.load();
    let scripts: Vec<_> =
        map.identifiers().filter(|name| map.get(name).is_some_and(|task| task.generation.tasks().len() == 1)).collect();
    assert_eq!(scripts, ["a/b/y", "a/linked", "a/x", "elsewhere/z", "top"]);
    let plugin = &map.get("echo").expect("the plugin's").generation;
    assert_eq!(plugin.plugin(), "a/misbehaving");
    let mut skipped = BTreeSet::new();
    while skipped.len() < 2 {
        if let Event::FileSkipped { file, reason, .. } = folder.next().await {
            skipped.insert((file, reason));
        }
    }
    let said: Vec<_> = skipped.iter().map(|(file, reason)| (file.as_str(), reason.as_str())).collect();
    assert_eq!(
        said,
        [
            ("a/not this", "a folder's name may have letters, digits, - and _: rename it"),
            ("link", "is a link to a folder, which is not looked into"),
        ]
    );
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_followed_as_they_come_move_and_go() {
    let folder = Watched::start().await;
    // All at once, deeper than anything that is watched.
    make_folder(&folder.path.join("a"));
    make_folder(&folder.path.join("a/b"));
    install(&folder.path.join("a/b"), "x.sh", &script("1"));
    has(&folder, &["a/b/x"]).await;
    install(&folder.path.join("a"), "y", &script("2"));
    has(&folder, &["a/b/x", "a/y"]).await;

    fs::rename(folder.path.join("a"), folder.path.join("c")).expect("rename a folder");
    has(&folder, &["c/b/x", "c/y"]).await;
    install(&folder.path.join("c/b"), "z", &script("3"));
    has(&folder, &["c/b/x", "c/b/z", "c/y"]).await;

    for round in 0..5 {
        fs::remove_dir_all(folder.path.join("c")).expect("remove a folder");
        make_folder(&folder.path.join("c"));
        install(&folder.path.join("c"), "again", &script("4"));
        has(&folder, &["c/again"]).await;
        let other = script(&format!("round {round}"));
        install(&folder.path.join("c"), "again", &other);
        let mut changed = folder.map.subscribe();
        while folder.map.load().get("c/again").is_none_or(|task| task.generation.build() != build_of(&other)) {
            let change = tokio::time::timeout(crate::harness::program::DEADLINE, changed.changed()).await;
            change.expect("the new script is seen").expect("the map lives");
        }
    }

    // Filled beside, then moved in.
    make_folder(&folder.staging.join("whole"));
    install(&folder.staging.join("whole"), "one", &script("5"));
    fs::rename(folder.staging.join("whole"), folder.path.join("d")).expect("move a folder in");
    has(&folder, &["c/again", "d/one"]).await;
    fs::rename(folder.path.join("d"), folder.staging.join("gone")).expect("move a folder out");
    has(&folder, &["c/again"]).await;
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_others_may_write_to_makes_all_in_it_unsafe() {
    let fill = |path: &Path| {
        make_folder(&path.join("open"));
        make_folder(&path.join("open/inside"));
        install(&path.join("open/inside"), "task", &script("1"));
        install(&path.join("open"), "libmisbehaving.so", &build_labelled(1));
        fs::set_permissions(path.join("open"), fs::Permissions::from_mode(0o777)).expect("chmod");
        install(path, "fine", &script("2"));
    };
    let folder = Watched::start_with(fill, |_| {}).await;
    has(&folder, &["fine"]).await;
    let refused: Vec<_> = folder.rejections.iter().map(|refused| refused.file.as_str()).collect();
    assert_eq!(refused, ["open/inside/task", "open/libmisbehaving.so"]);
    for refused in &folder.rejections {
        assert!(refused.reason.contains("open (mode 0777); chmod go-w it"), "{}", refused.reason);
    }
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_files_are_all_served_and_all_followed() {
    const FOLDERS: usize = 20;
    const FILES: usize = 100;
    let fill = |path: &Path| {
        for folder in 0..FOLDERS {
            let folder = path.join(format!("f{folder}"));
            make_folder(&folder);
            for file in 0..FILES {
                install(&folder, &format!("t{file}.sh"), &script(&file.to_string()));
            }
        }
    };
    let folder = Watched::start_with(fill, |settings| settings.settle = Duration::from_millis(25)).await;
    assert_eq!(folder.map.load().identifiers().len(), FOLDERS * FILES);
    let changed = script("changed");
    install(&folder.path.join("f7"), "t42.sh", &changed);
    let mut maps = folder.map.subscribe();
    while folder.map.load().get("f7/t42").expect("the task").generation.build() != build_of(&changed) {
        tokio::time::timeout(crate::harness::program::DEADLINE, maps.changed())
            .await
            .expect("it is seen")
            .expect("the map lives");
    }
    fs::remove_dir_all(folder.path.join("f3")).expect("remove a folder");
    while folder.map.load().identifiers().len() != (FOLDERS - 1) * FILES {
        tokio::time::timeout(crate::harness::program::DEADLINE, maps.changed())
            .await
            .expect("it is seen")
            .expect("the map lives");
    }
    folder.stop().await;
}
