//! What happens to the folder itself: it goes, comes back, is swapped, or is not to be trusted.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use taskbay::{
    config::{FolderSettings, PluginLookup},
    events::{Event, Events},
    plugin::HostServices,
    tasks::{FolderError, LiveTaskMap, TasksFolder},
};

use super::{FILE, NoJobs, Watched, settings};
use crate::harness::plugins::{build_labelled, install, tasks_folder};

async fn first_listing(settings: FolderSettings) -> Result<(), FolderError> {
    let program = env!("CARGO_BIN_EXE_taskbay").into();
    let services = HostServices { add_job: Arc::new(NoJobs), events: Events::default(), program };
    let folder = TasksFolder::new(settings, PluginLookup::default(), services, Arc::new(LiveTaskMap::default()));
    folder.load_all().await.map(drop)
}

/// In one step: file by file, the folder might be seen empty first.
fn take_away(folder: &Watched) {
    fs::rename(&folder.path, folder.staging.join("away")).expect("move the folder away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_removed_keeps_serving_and_is_watched_again_when_it_is_back() {
    let (one, two) = (build_labelled(1), build_labelled(2));
    let mut folder = Watched::start_with(|path| install(path, FILE, &one), |_| {}).await;
    folder.loads("the first build", &one).await;
    take_away(&folder);
    let missing = folder.next().await;
    assert!(matches!(missing, Event::FolderMissing { .. }), "{missing:?}");
    assert!(folder.map.load().get("echo").is_some(), "what was loaded serves on");
    let script = format!("mkdir ../new; cp $1 ../new/{FILE}; mv ../new ../tasks");
    super::shell(&folder.staging, &script, &folder.stage(&two));
    let back = folder.next().await;
    assert!(matches!(back, Event::FolderBack { .. }), "{back:?}");
    folder.loads("the build in the new folder", &two).await;
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_made_again_at_once_is_watched_again() {
    let mut folder = Watched::start().await;
    // The new folder often gets the number of the old one.
    for label in 1..=5 {
        let bytes = build_labelled(label);
        let staged = folder.stage(&bytes);
        super::shell(&folder.staging, &format!("rm -rf ../tasks; mkdir ../tasks; cp $1 ../tasks/{FILE}"), &staged);
        folder.loads_in_steps("in the folder that was made again", &bytes).await;
        let bytes = build_labelled(100 + label);
        folder.shell(&format!("mv $1 {FILE}"), &folder.stage(&bytes));
        folder.loads("in the new folder", &bytes).await;
    }
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_the_folder_is_followed_to_where_it_leads_now() {
    let home = tasks_folder();
    let (one, two) = (build_labelled(1), build_labelled(2));
    for (name, bytes) in [("v1", &one), ("v2", &two)] {
        super::make_folder(&home.path().join(name));
        install(&home.path().join(name), FILE, bytes);
    }
    super::shell(home.path(), "ln -s v1 current", home.path());
    let current = home.path().join("current");
    let mut folder = Watched::start_with(|_| {}, |settings| settings.path = current).await;
    folder.loads("where the link leads", &one).await;
    super::shell(home.path(), "ln -s v2 next; mv -T next current", home.path());
    folder.loads("where it leads then", &two).await;
    let three = build_labelled(3);
    install(&home.path().join("v2"), FILE, &three);
    folder.loads("in the other folder", &three).await;
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_stays_away_takes_its_tasks_along_after_the_grace() {
    let one = build_labelled(1);
    let grace = |settings: &mut FolderSettings| settings.missing_grace = Some(Duration::from_millis(300));
    let mut folder = Watched::start_with(|path| install(path, FILE, &one), grace).await;
    folder.loads("the build", &one).await;
    take_away(&folder);
    assert!(matches!(folder.next().await, Event::FolderMissing { .. }));
    folder.removes("after the grace").await;
    assert_eq!(folder.map.load().identifiers().len(), 0);
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_becomes_unsafe_is_not_called_missing() {
    let one = build_labelled(1);
    let mut folder = Watched::start_with(|path| install(path, FILE, &one), |_| {}).await;
    folder.loads("the build", &one).await;
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    set_mode(&folder.path, 0o777);
    match folder.next().await {
        Event::FolderUnusable(trouble) => {
            assert!(trouble.reason.contains("is not safe: others may write to"), "{trouble:?}")
        }
        other => panic!("expected that it is not safe, but: {other:?}"),
    }
    // What is wrong with it changes.
    take_away(&folder);
    let missing = folder.next().await;
    assert!(matches!(missing, Event::FolderMissing(_)), "{missing:?}");
    set_mode(&folder.staging.join("away"), 0o755);
    fs::rename(folder.staging.join("away"), &folder.path).expect("move it back");
    let back = folder.next().await;
    assert!(matches!(back, Event::FolderBack { .. }), "{back:?}");
    assert!(folder.map.load().get("echo").is_some(), "what was loaded serves on");
    folder.stop().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_says_why() {
    let home = tasks_folder();
    let path = |name: &str| home.path().join(name);
    fs::write(path("file"), "").expect("write a file");
    for (name, mode) in [("open", 0o777), ("sticky", 0o1777), ("shared", 0o775)] {
        super::make_folder(&path(name));
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).expect("set permissions");
    }
    super::make_folder(&path("open/inside"));
    for (name, message) in [
        ("none", "does not exist: create it, or name another"),
        ("file", "is not a folder: name the folder that the compiled plugins are in"),
        ("open", "others may write to"),
        ("sticky", "chmod go-w it"),
        ("shared", "(mode 0775)"),
        ("open/inside", "open (mode 0777)"),
    ] {
        let mut settings = settings(&path(name));
        settings.tolerate_broken_start = false;
        let error = first_listing(settings).await.expect_err(name).to_string();
        assert!(error.contains(message) && error.contains(&path(name).display().to_string()), "{name}: {error}");
    }
    super::make_folder(&path("sticky/inside"));
    first_listing(settings(&path("sticky/inside"))).await.expect("a folder in one like /tmp is safe");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relative_path_is_watched_too() {
    let here = std::env::current_dir().expect("a working folder");
    let up: String = here.components().skip(1).map(|_| "../").collect();
    let home = tasks_folder();
    let relative = Path::new(&up).join(home.path().strip_prefix("/").expect("an absolute path"));
    let mut folder = Watched::start_with(|_| {}, |settings| settings.path = relative).await;
    let one = build_labelled(1);
    install(home.path(), FILE, &one);
    folder.loads("by a relative path", &one).await;
    folder.stop().await;
}
