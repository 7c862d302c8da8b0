//! What the kernel knows of processes.

use std::{fs, path::Path};

/// The processes that a process has started and that are still there, with their command lines.
pub fn children_of(parent: u32) -> Vec<(u32, String)> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").expect("list the processes").map_while(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end between the listing and the reading.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name, in parentheses, may hold anything; the state and the parent follow the last one.
        let Some((_, after_name)) = stat.rsplit_once(") ") else { continue };
        let mut fields = after_name.split(' ').skip(1);
        if fields.next().and_then(|field| field.parse().ok()) == Some(parent) {
            let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            children.push((pid, command.replace('\0', " ")));
        }
    }
    children
}

/// Whether a process is there (and not a zombie).
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, after_name)| !after_name.starts_with('Z') && !after_name.starts_with('X'))
}

/// The memory of a process that is its own and in use, in KiB.
#[track_caller]
pub fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read a process's status");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("the status has RssAnon");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("RssAnon is a number")
}

/// Waits for the end of a process that is not this one's child.
pub async fn wait_until_gone(pid: u32) {
    super::wait::until_true(format_args!("process {pid} is gone"), async || !is_alive(pid)).await;
}
