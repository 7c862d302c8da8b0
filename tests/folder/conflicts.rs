//! Two files that want the same: the one that has it keeps it, and the other is told which one that is.

use std::{fs, path::Path};

use taskbay::events::Event;

use super::{FILE, Watched, build_of};
use crate::harness::plugins::{build_labelled, build_that, install};

#[tokio::test(flavor = "multi_thread")]
async fn at_the_start_the_first_by_name_gets_the_tasks() {
    let fill = |path: &Path| {
        install(path, "libb.so", &build_labelled(2));
        install(path, "liba.so", &build_labelled(1));
    };
    let folder = Watched::start_with(fill, |_| {}).await;
    assert_eq!(folder.map.load().get("echo").expect("echo").generation.build(), build_of(&build_labelled(1)));
    let [refused] = folder.rejections.as_slice() else { panic!("one file is refused: {:?}", folder.rejections) };
    assert_eq!(refused.file, "libb.so");
    assert!(refused.reason.contains("which liba.so has already: rename the task"), "{}", refused.reason);
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_waits_for_those_before_it_however_long_they_take() {
    let fill = |path: &Path| {
        install(path, "libhasty.so", &build_that("start-hang"));
        install(path, "libz.so", &build_labelled(1));
    };
    let mut folder = Watched::start_with(fill, |_| {}).await;
    // Had it not waited, it would have been loaded long before the other's time was up.
    let (reason, _) = folder.refuses("libhasty.so").await;
    assert!(reason.contains("did not finish within 1s"), "{reason}");
    folder.loads("the one after it", &build_labelled(1)).await;
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_task_keeps_it_and_the_other_gets_it_when_it_is_free() {
    let mut folder = Watched::start_with(|path| install(path, "libz.so", &build_labelled(1)), |_| {}).await;
    folder.loads("the owner", &build_labelled(1)).await;
    install(&folder.path, "liba.so", &build_labelled(2));
    let (reason, serving) = folder.refuses("liba.so").await;
    assert!(reason.contains("which libz.so has already"), "{reason}");
    assert_eq!(serving, None);
    install(&folder.path, "libz.so", &build_labelled(3));
    folder.loads("the owner's next build", &build_labelled(3)).await;
    fs::remove_file(folder.path.join("libz.so")).expect("remove the owner");
    folder.removes("the owner").await;
    folder.loads("the other, by itself", &build_labelled(2)).await;
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files_with_one_plugin_name_are_told_apart() {
    let mut folder = Watched::start_with(|path| install(path, FILE, &build_labelled(1)), |_| {}).await;
    folder.loads("the plugin", &build_labelled(1)).await;
    install(&folder.path, "misbehaving.so", &build_labelled(2));
    let (reason, _) = folder.refuses("misbehaving.so").await;
    assert!(reason.contains("would be plugin misbehaving, which libmisbehaving.so is already: remove one"), "{reason}");
    fs::remove_file(folder.path.join(FILE)).expect("remove the first");
    folder.removes("the first").await;
    let event = folder.next().await;
    assert!(matches!(&event, Event::PluginLoaded { file, .. } if file == "misbehaving.so"), "{event:?}");
    folder.stop().await;
}
