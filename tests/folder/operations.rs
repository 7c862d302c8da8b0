//! Each way in which people and tools put a file into a folder: the new build serves, and nothing else is said.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    time::{Duration, Instant},
};

use taskbay::events::Event;

use super::{FILE, Watched, build_of, make_folder, stage};
use crate::harness::plugins::build_labelled;

/// In this order, each beginning with what the one before left: what it is called, and how a shell does it.
const OPERATIONS: [(&str, &str); 13] = [
    ("cp", "cp $1 libmisbehaving.so"),
    ("cp over", "cp $1 libmisbehaving.so"),
    ("install over", "install $1 libmisbehaving.so"),
    ("mv", "mv $1 libmisbehaving.so"),
    ("temporary file and mv", "cp $1 .libmisbehaving.so.x8Kq; mv .libmisbehaving.so.x8Kq libmisbehaving.so"),
    ("rm and cp", "rm libmisbehaving.so; cp $1 libmisbehaving.so"),
    ("ln over", "ln -f $1 libmisbehaving.so"),
    ("rm and ln", "rm libmisbehaving.so; ln $1 libmisbehaving.so"),
    (
        "touch, then cp",
        "touch libmisbehaving.so; chmod 700 libmisbehaving.so; rm libmisbehaving.so; cp $1 libmisbehaving.so",
    ),
    ("ln -s", "mv $1 $1.1; rm libmisbehaving.so; ln -s $1.1 libmisbehaving.so"),
    ("ln -sf", "mv $1 $1.2; ln -sf $1.2 libmisbehaving.so"),
    ("writing where a link leads", "cp $1 $1.2"),
    ("mv over a link", "mv $1 libmisbehaving.so"),
];

/// Whether the folder has another state between the old file and the new one, which a slow machine lets the host see:
/// `rm` and `install` delete the old file first, and `ln` makes a link of a random name, which it then renames.
fn in_steps(script: &str) -> bool {
    ["rm libmisbehaving.so;", "install ", "ln "].iter().any(|step| script.contains(step))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_brings_the_new_build_and_nothing_else() {
    let mut folder = Watched::start().await;
    for (label, (name, script)) in (1..).zip(OPERATIONS) {
        let bytes = build_labelled(label);
        let staged = folder.stage(&bytes);
        folder.shell(script, &staged);
        if in_steps(script) {
            folder.loads_in_steps(name, &bytes).await;
        } else {
            folder.loads(name, &bytes).await;
        }
    }
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_moved_from_another_file_system_is_loaded_when_it_is_whole() {
    let mut folder = Watched::start().await;
    let elsewhere = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    for label in [1, 2] {
        let bytes = build_labelled(label);
        folder.shell(&format!("mv $1 {FILE}"), &stage(elsewhere.path(), &bytes));
        folder.loads("mv from another file system", &bytes).await;
    }
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_in_a_file_reloads_nothing() {
    let mut folder = Watched::start().await;
    let (one, two) = (build_labelled(1), build_labelled(2));
    folder.shell(&format!("cp $1 {FILE}"), &folder.stage(&one));
    folder.loads("the first build", &one).await;
    // The next thing that is heard of is the second build.
    folder.shell(&format!("touch {FILE}; chmod 700 {FILE}; cp $1 {FILE}; cat {FILE} >/dev/null"), &folder.stage(&one));
    folder.force.notify_one();
    folder.shell(&format!("mv $1 {FILE}"), &folder.stage(&two));
    folder.loads("the second build", &two).await;
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubernetes_volume_is_followed_through_its_swaps() {
    let mut folder = Watched::start().await;
    for label in 1..=3 {
        let bytes = build_labelled(label);
        let script = format!(
            "mkdir ..{label}; cp $1 ..{label}/{FILE}; ln -s ..{label} ..data_tmp; mv -T ..data_tmp ..data
             test -L {FILE} || ln -s ..data/{FILE} {FILE}
             rm -rf ..{}",
            label - 1
        );
        folder.shell(&script, &folder.stage(&bytes));
        folder.loads("a swap of ..data", &bytes).await;
    }
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_writer_is_waited_for_without_a_word() {
    let mut folder = Watched::start().await;
    let bytes = build_labelled(1);
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let open = || fs::OpenOptions::new().append(true).create(true).mode(0o755).open(folder.path.join(FILE));
    for part in bytes.chunks(bytes.len() / 20 + 1) {
        // Closed after each part, so that it looks complete each time.
        open().expect("open the file").write_all(part).expect("write a part");
        pace.tick().await;
    }
    folder.loads("a slow writer", &bytes).await;
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_file_takes_its_tasks_along_and_a_renamed_one_keeps_them() {
    let mut folder = Watched::start().await;
    let bytes = build_labelled(1);
    folder.shell(&format!("mv $1 {FILE}"), &folder.stage(&bytes));
    folder.loads("the file", &bytes).await;
    assert!(folder.map.load().get("echo").is_some());
    folder.shell(&format!("mv {FILE} misbehaving.so"), &folder.path.clone());
    folder.removes("under its old name").await;
    folder.loads("under its new name", &bytes).await;
    folder.shell("rm misbehaving.so", &folder.path.clone());
    folder.removes("the file").await;
    assert_eq!(folder.map.load().identifiers().len(), 0);
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_come_while_another_build_starts_are_not_lost() {
    let mut folder = Watched::start().await;
    let last = build_labelled(40);
    for label in 1..=40 {
        // Each replaces one that is still being launched.
        folder.shell(&format!("mv $1 {FILE}"), &folder.stage(&build_labelled(label)));
    }
    let began = Instant::now();
    loop {
        let event = folder.next().await;
        let Event::PluginLoaded { build, .. } = &event else { panic!("only builds are loaded, but: {event:?}") };
        if build.build == build_of(&last) {
            break;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(folder.map.load().get("echo").expect("echo").generation.build(), build_of(&last));
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_its_sections_is_loaded_since_nothing_needs_them() {
    let mut folder = Watched::start().await;
    let mut bytes = build_labelled(1);
    bytes.truncate(bytes.len() - 100);
    folder.shell(&format!("mv $1 {FILE}"), &folder.stage(&bytes));
    folder.loads("after a while", &bytes).await;
    folder.stop().await;
}

/// Two files come by one rename, and the state of the folder is asked for when the first of them has been read.
#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_folder_is_told_while_a_large_file_is_read() {
    let mut folder = Watched::start().await;
    let large = folder.staging.join("large");
    make_folder(&large);
    for name in ["liba.so", "libb.so"] {
        let file = File::create(large.join(name)).expect("create a file");
        file.set_len(1 << 30).expect("make it large");
        file.set_permissions(Permissions::from_mode(0o644)).expect("let nobody else write");
    }
    fs::rename(&large, folder.path.join("large")).expect("rename a folder");
    folder.refuses("large/liba.so").await;
    let snapshot = folder.handle.snapshot().await.expect("the folder is watched");
    let refused: Vec<bool> = snapshot.files.iter().map(|file| file.refused.is_some()).collect();
    assert_eq!(refused, [true, false], "the second file is being read");
    folder.refuses("large/libb.so").await;
    folder.stop().await;
}
