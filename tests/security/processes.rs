//! What a process with a plugin's or an executable's code inherits, and the bounds that it is given.

use std::{fs, os::fd::AsFd};

use rustix::io::FdFlags;
use serde_json::json;

use super::Workplace;
use crate::harness::{
    plugins::{install, tasks_folder},
    processes::children_of,
    program::Taskbay,
};

/// What a host gets from a program that left a file open.
const LEFT_OPEN: &str = "/etc/hostname";

/// Starts a host with a descriptor that it does not know of.
fn spawn_with_a_file_left_open(call: Taskbay) -> crate::harness::program::Running {
    let file = fs::File::open(LEFT_OPEN).expect("open a file");
    rustix::io::fcntl_setfd(file.as_fd(), FdFlags::empty()).expect("let it be inherited");
    let host = call.spawn();
    drop(file);
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugins_process_has_no_descriptor_that_was_not_meant_for_it() {
    let place = Workplace::new().await;
    let host = spawn_with_a_file_left_open(place.run());
    let open = fs::read_dir(format!("/proc/{}/fd", host.id())).expect("list the host's files");
    let open = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    assert!(open.into_iter().any(|file| file.ends_with(LEFT_OPEN)), "the host itself has it");

    let seen = place.look_around(&host).await;
    // The standard streams, the line to the host, the image of the plugin, and what its own runtime waits by.
    let meant = ["/dev/null", "pipe:[", "socket:[", "/memfd:taskbay-misbehaving", "anon_inode:[event"];
    let files = seen.files();
    let strange: Vec<_> = files.iter().filter(|file| !meant.iter().any(|start| file.starts_with(start))).collect();
    // The folder of descriptors is open while it is listed.
    assert!(strange.iter().all(|file| file.ends_with("/fd")), "{files:?}");
    assert!(files.len() < 16, "{files:?}");
    assert_eq!(seen.status("NoNewPrivs"), ["1"]);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executable_has_no_descriptor_that_was_not_meant_for_it() {
    let place = Workplace::new().await;
    let notes = tempfile::tempdir().expect("a folder for notes");
    let note = notes.path().join("files");
    let script = format!("#!/bin/sh\nls -l /proc/self/fd > {}\n", note.display());
    install(place.folder.path(), "files.sh", script.as_bytes());
    place.database.add("files", json!({})).await;
    let mut host = spawn_with_a_file_left_open(place.run().arg("--once"));
    assert!(host.ended().await.success());
    let files = fs::read_to_string(note).expect("what it has noted");
    assert!(!files.contains(LEFT_OPEN) && files.contains("pipe:["), "{files}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bounds_of_the_settings_hold_in_the_plugins_process() {
    let place = Workplace::new().await;
    let host = place.run().settings("[plugins.misbehaving]\nopen_files = 64\nprocesses = 4000").spawn();
    let seen = place.look_around(&host).await;
    assert_eq!(seen.limits("Max open files"), ["64", "64"]);
    assert_eq!(seen.limits("Max processes"), ["4000", "4000"]);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_beyond_what_the_host_may_itself_is_refused() {
    let place = Workplace::new().await;
    let settings = "[plugins.misbehaving]\nopen_files = 1000000000000";
    let output = place.run().arg("--once").settings(settings).output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("open_files, processes or user"), "{said}");
}

/// Root's tests change to an account that every system has; others can only see that they may not.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_runs_as_the_user_of_its_settings_if_the_host_is_root() {
    let place = Workplace::new().await;
    let call = || place.run().settings("[plugins.misbehaving]\nuser = \"nobody\"\nprocesses = 4000");
    if !rustix::process::geteuid().is_root() {
        let output = call().arg("--once").output();
        let said = String::from_utf8_lossy(&output.stderr);
        return assert!(!output.status.success() && said.contains("only a host that runs as root"), "{said}");
    }
    let passwd = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
    let line = passwd.lines().find(|line| line.starts_with("nobody:")).expect("there is this account");
    let fields: Vec<&str> = line.split(':').collect();
    install(place.folder.path(), "whoami.sh", b"#!/bin/sh\necho \"I am $(id -u), at $HOME\"\n");
    let host = call().settings("[plugins.whoami]\nuser = \"nobody\"").spawn();
    let seen = place.look_around(&host).await;
    assert_eq!(seen.status("Uid"), [fields[2]; 4]);
    assert_eq!(seen.status("Gid"), [fields[3]; 4]);
    assert!(!seen.status("Groups").contains(&"0"), "{:?}", seen.status("Groups"));
    assert_eq!((seen.variable("USER"), seen.variable("HOME")), (Some("nobody"), Some(fields[5])));
    assert_eq!(seen.limits("Max processes"), ["4000", "4000"]);

    place.database.add("whoami", json!({})).await;
    host.event("job_output", |line| line["message"] == format!("I am {}, at {}", fields[2], fields[5])).await;

    // It still ends with the host, however that ends.
    let children = children_of(host.id());
    let (plugin, _) = children.iter().find(|(_, command)| command.contains("misbehaving")).expect("its process");
    host.signal(rustix::process::Signal::KILL);
    crate::harness::processes::wait_until_gone(*plugin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_does_not_exist_or_cannot_be_is_refused_with_the_reason() {
    let place = Workplace::new().await;
    let refused = |call: Taskbay, settings: &str| {
        let output = call.arg("--once").settings(settings).output();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(place.run(), "[plugins.misbehaving]\nuser = \"no-such-user\"");
    assert!(said.contains("no-such-user") && said.contains("no such user in /etc/passwd"), "{said}");
    let said = refused(place.run().arg("--in-process"), "[plugins.misbehaving]\nuser = \"nobody\"");
    assert!(said.contains("cannot be kept to in the host's own process"), "{said}");

    let folder = tasks_folder();
    install(folder.path(), "script.sh", b"#!/bin/sh\n");
    let call = Taskbay::run(&place.database.url(), folder.path());
    let said = refused(call, "[plugins.script]\nuser = \"no-such-user\"");
    assert!(said.contains("no such user in /etc/passwd"), "{said}");
}
