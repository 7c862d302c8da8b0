//! Files that are no plugins: one clear line for each, and everything else serves on.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
};

use super::{FILE, Watched, build_of, shell};
use crate::harness::{
    plugins::{build_labelled, build_that, install},
    program::Taskbay,
};

/// A plugin with some bytes changed: from `at`, or from so far behind the start of its header.
fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = build_labelled(99);
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn patched_header(behind: usize, bytes: &[u8]) -> Vec<u8> {
    let file = build_labelled(99);
    // The text may occur in the code as well; a header begins with it, followed by its own size and the version 1.0.
    let is_header = |at: &usize| file[*at..].starts_with(b"TASKBAY\0") && file[at + 12..].starts_with(&[1, 0, 0, 0, 0]);
    let at = (0..file.len() - 64).find(is_header).expect("the plugin has a header");
    patched(at + behind, bytes)
}

fn cut_to(len: impl Fn(usize) -> usize) -> Vec<u8> {
    let mut file = build_labelled(99);
    file.truncate(len(file.len()));
    file
}

/// A library of the system.
fn some_library() -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").expect("this process has a map");
    fs::read(maps.split_whitespace().find(|word| word.contains("libc.so")).expect("this process uses libc"))
        .expect("read a library")
}

/// What is wrong with a file, its contents, and what is said of it.
fn bad_contents() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let loadable = |len: usize| len / 20;
    vec![
        ("empty", Vec::new(), "is empty: was the copy cut off? copy the compiled plugin again"),
        ("text", b"hello\n".to_vec(), "is not a compiled library: a plugin is the .so file that cargo builds"),
        ("long-text", vec![b'x'; 100_000], "is not a compiled library: a plugin is the .so file that cargo builds"),
        ("short", cut_to(|_| 40), "is truncated: it should have 64 bytes and has 40; copy it again"),
        ("truncated", cut_to(loadable), "is truncated: it should have "),
        ("bits32", patched(4, &[1]), "is a 32-bit library, and this host runs 64-bit ones: build it with --target"),
        ("order", patched(5, &[2]), "was built for a processor of the other byte order, and this host runs on"),
        ("machine", patched(18, &[22, 0]), "was built for processor type 22, and this host runs on"),
        ("program", patched(16, &[1, 0]), "is a program or an object file, not a shared library: set crate-type"),
        ("library", some_library(), "is a library but no taskbay plugin: it lacks the symbol TASKBAY_PLUGIN; end its"),
        ("major", patched_header(12, &[2]), "was built for taskbay plugin interface 2.0, and this host speaks 1.0:"),
        ("minor", patched_header(16, &[9]), "was built for taskbay plugin interface 1.9, and this host speaks 1.0:"),
        ("magic", patched_header(0, b"t"), "is damaged (its plugin header cannot be read): build it again"),
        ("abort", patched_header(24, &[1]), "was built with panic = \"abort\", so that one panic would end all its"),
        ("crash", build_that("load-crash"), "its constructor crashed ("),
        ("exit", build_that("load-exit"), "while loading: remove that from its constructors"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_file_gets_one_clear_line_and_the_good_one_serves() {
    let cases = bad_contents();
    let fill = |path: &Path| {
        install(path, FILE, &build_labelled(1));
        for (name, bytes, _) in &cases {
            install(path, &format!("lib{name}.so"), bytes);
        }
    };
    let folder = Watched::start_with(fill, |_| {}).await;
    assert!(folder.map.load().get("echo").is_some());
    let mut said: BTreeMap<&str, &str> =
        folder.rejections.iter().map(|refused| (refused.file.as_str(), refused.reason.as_str())).collect();
    for (name, _, message) in &cases {
        let reason = said.remove(format!("lib{name}.so").as_str()).unwrap_or_else(|| panic!("{name} was not refused"));
        assert!(reason.contains(message), "{name}: {reason}");
        assert!(!reason.contains('\n'), "{name}: {reason}");
    }
    assert!(said.is_empty(), "{said:?}");
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_of_ones_own_is_refused() {
    let mut sockets = Vec::new();
    let fill = |path: &Path| {
        let good = build_labelled(1);
        for (name, mode) in [("group", 0o775), ("world", 0o757), ("setuid", 0o4755)] {
            install(path, &format!("lib{name}.so"), &good);
            fs::set_permissions(path.join(format!("lib{name}.so")), fs::Permissions::from_mode(mode)).expect("chmod");
        }
        sockets.push(UnixListener::bind(path.join("libsocket.so")).expect("make a socket"));
        shell(
            path,
            "mkdir libfolder.so; mkfifo libfifo.so; ln -s nowhere.so libdead.so; ln -s libloop.so libloop.so",
            path,
        );
        // A link out of the folder, to where others may write.
        shell(
            path,
            "mkdir ../shared; chmod 777 ../shared; cp libgroup.so ../shared/x.so; ln -s ../shared/x.so libout.so",
            path,
        );
        fs::set_permissions(path.join("../shared/x.so"), fs::Permissions::from_mode(0o755)).expect("chmod");
    };
    let folder = Watched::start_with(fill, |_| {}).await;
    let said: BTreeMap<&str, &str> =
        folder.rejections.iter().map(|refused| (refused.file.as_str(), refused.reason.as_str())).collect();
    let expected = [
        ("group", "is not safe: others may write to it (mode 0775); chmod go-w it"),
        ("world", "is not safe: others may write to it (mode 0757); chmod go-w it"),
        ("setuid", "is not safe: it has the setuid or setgid bit, which a plugin has no use for; chmod ug-s it"),
        ("socket", "is not a file: put the compiled plugin itself here"),
        ("folder", "is not a file: put the compiled plugin itself here"),
        ("fifo", "is not a file: put the compiled plugin itself here"),
        ("dead", "is a link to nowhere.so, which does not exist"),
        ("loop", "cannot be read: its links lead in a circle"),
        ("out", "is not safe: it is a link into a folder that is not: others may write to"),
    ];
    for (name, message) in expected {
        let reason = said.get(format!("lib{name}.so").as_str()).unwrap_or_else(|| panic!("{name}: {said:?}"));
        assert!(reason.contains(message), "{name}: {reason}");
    }
    assert_eq!(said.len(), expected.len(), "{said:?}");
    folder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_leaves_the_serving_build_and_is_tried_again_when_it_changes_or_when_told() {
    let (one, two) = (build_labelled(1), build_labelled(2));
    let mut folder = Watched::start_with(|path| install(path, FILE, &one), |_| {}).await;
    folder.loads("the first build", &one).await;
    for (bytes, message) in
        [(build_that("load-crash"), "its constructor crashed"), (some_library(), "it lacks the symbol")]
    {
        install(&folder.path, FILE, &bytes);
        let (reason, serving) = folder.refuses(FILE).await;
        assert!(reason.contains(message), "{reason}");
        assert_eq!(serving, Some(build_of(&one)));
        assert_eq!(folder.map.load().get("echo").expect("echo").generation.build(), build_of(&one));
        // Told to look again, it says the same again, once.
        folder.force.notify_one();
        let (again, serving) = folder.refuses(FILE).await;
        assert_eq!((again, serving), (reason, Some(build_of(&one))));
    }
    install(&folder.path, FILE, &two);
    folder.loads("the mended file", &two).await;
    folder.stop().await;
}

#[test]
fn a_file_that_may_not_be_read_says_so() {
    let folder = crate::harness::plugins::tasks_folder();
    install(folder.path(), FILE, &build_labelled(1));
    fs::set_permissions(folder.path().join(FILE), fs::Permissions::from_mode(0o200)).expect("chmod");
    // Root may read everything, so that somebody else has to look.
    let output = if rustix::process::geteuid().is_root() {
        std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_taskbay"), "plugins"])
            .arg(folder.path())
            .current_dir("/")
            .output()
            .expect("run taskbay as nobody: is setpriv installed?")
    } else {
        Taskbay::command("plugins").arg(folder.path()).output()
    };
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("permission denied; let this user read it (chmod a+r)"), "{said}");
}

/// Each refusal is about what is wrong now.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_whose_permissions_go_and_come_back_is_refused_for_its_contents_again() {
    let mut folder = Watched::start().await;
    install(&folder.path, FILE, b"no plugin");
    assert!(folder.refuses(FILE).await.0.contains("not a compiled library"));
    let file = folder.path.join(FILE);
    let set_mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("chmod");
    set_mode(0o777);
    assert!(folder.refuses(FILE).await.0.contains("is not safe"));
    set_mode(0o755);
    assert!(folder.refuses(FILE).await.0.contains("not a compiled library"));
    folder.stop().await;
}
