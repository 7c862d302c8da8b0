//! The task that tells what its process may do and see.

use std::{collections::BTreeMap, env, fs};

use taskbay_plugin::prelude::*;

/// Logs what is known of the process: its open files, its limits and status as the kernel tells them, and its environment.
#[task]
pub(crate) async fn look_around() -> TaskResult {
    let mut files = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").or_fail("cannot list the open files")?.flatten() {
        // That of the listing itself is closed by then.
        if let Ok(target) = fs::read_link(entry.path()) {
            files.push(target.display().to_string());
        }
    }
    let read =
        |file: &str| fs::read_to_string(format!("/proc/self/{file}")).or_fail(format_args!("cannot read {file}"));
    let environment: BTreeMap<String, String> = env::vars().collect();
    let seen = json!({
        "files": files, "limits": read("limits")?, "status": read("status")?, "environment": environment,
    });
    info!(seen = %seen, "what I see");
    Ok(())
}
