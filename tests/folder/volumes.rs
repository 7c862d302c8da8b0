//! Volumes as Kubernetes mounts them: open to everybody by their mode, mounted read-only, and swapped behind `..data`.

use std::{ffi::OsStr, fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::json;

use super::{FILE, make_folder, shell, stage};
use crate::harness::{
    ledger::Ledger,
    plugins::{build_labelled, tasks_folder},
    postgres::TestDatabase,
    program::Taskbay,
};

/// Mounts the first folder at the second, for the program alone that comes after that, read-only or not.
const MOUNT: &str = "mount --bind \"$1\" \"$2\" && mount -o remount,bind,$3 \"$2\" && shift 3 && exec \"$@\"";

/// Has the program see a folder at another place. Root needs no more for that; others need a namespace in which they are root.
fn with_volume(call: Taskbay, volume: &Path, at: &Path, mode: &str) -> Taskbay {
    let own = if rustix::process::geteuid().is_root() { "--mount" } else { "--map-root-user" };
    let args: Vec<&OsStr> = [own, "--mount", "sh", "-c", MOUNT, "sh"].map(OsStr::new).to_vec();
    let args = [args, vec![volume.as_os_str(), at.as_os_str(), OsStr::new(mode)]].concat();
    call.below("unshare", &args)
}

/// Does with a volume what a kubelet does when it has new contents for it.
fn swap(volume: &Path, staging: &Path, label: u32) {
    let script = format!(
        "umask 000; mkdir ..{label}; cp $1 ..{label}/{FILE}; chmod 777 ..{label}/{FILE}
         ln -s ..{label} ..data_tmp; mv -T ..data_tmp ..data
         test -L {FILE} || ln -s ..data/{FILE} {FILE}
         rm -rf ..{}",
        label - 1
    );
    shell(volume, &script, &stage(staging, &build_labelled(label)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_all_may_write_to_is_served_where_it_is_mounted_read_only() {
    let (database, ledger) = (TestDatabase::installed().await, Ledger::new());
    for mode in [0o777, 0o1777] {
        let home = tasks_folder();
        let [volume, tasks, staging] = ["volume", "tasks", "staging"].map(|name| home.path().join(name));
        for folder in [&volume, &tasks, &staging] {
            make_folder(folder);
        }
        fs::set_permissions(&volume, fs::Permissions::from_mode(mode)).expect("open the volume");
        swap(&volume, &staging, 1);

        let call = Taskbay::run(&database.url(), &tasks).ledger(&ledger);
        let host = with_volume(call, &volume, &tasks, "ro").spawn();
        host.event("worker_ready", |_| true).await;
        for label in 1..=3 {
            if label > 1 {
                swap(&volume, &staging, label);
                let loaded = label as usize;
                host.nth_event(&["plugin_loaded"], loaded).await;
            }
            let id = database.add("echo", json!({})).await;
            host.event("job_done", |line| line["job"] == id).await;
            assert_eq!(ledger.entries().last().expect("it ran").label, format!("{label:010}"));
        }
        assert_eq!(host.events("file_rejected").len(), 0);
        host.stop().await;

        // It is the mount that makes the difference, and the refusal says what to do.
        let call = Taskbay::run(&database.url(), &tasks).arg("--once");
        let output = with_volume(call, &volume, &tasks, "rw").output();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(&format!("(mode {mode:04o})")), "{said}");
        assert!(said.contains("mount it read-only, or set strict_permissions = false under [tasks]"), "{said}");
        let call = Taskbay::run(&database.url(), &tasks).arg("--once").env("TASKBAY_STRICT_PERMISSIONS", "false");
        let output = with_volume(call, &volume, &tasks, "rw").output();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A folder that is not listed, because its name begins with a dot, is looked at where a link leads into it.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_by_way_of_a_hidden_folder_that_others_may_write_to_is_refused() {
    let home = tasks_folder();
    let staging = tasks_folder();
    make_folder(&home.path().join("tasks"));
    let tasks = home.path().join("tasks");
    let staged = stage(staging.path(), &build_labelled(1));
    shell(&tasks, &format!("mkdir ..1; cp $1 ..1/{FILE}; ln -s ..1 ..data; ln -s ..data/{FILE} {FILE}"), &staged);
    let plugins = || Taskbay::command("plugins").arg(&tasks).output();
    assert!(plugins().status.success());
    fs::set_permissions(tasks.join("..1"), fs::Permissions::from_mode(0o777)).expect("open it");
    let said = String::from_utf8_lossy(&plugins().stdout).into_owned();
    assert!(said.contains("is not safe: it is a link into a folder that is not: others may write to"), "{said}");
}
