//! What the processes of plugins get and may do, and that no secret comes to light.

use serde_json::{Value, json};

use crate::harness::{
    plugins::{install_plugin, tasks_folder},
    postgres::TestDatabase,
    program::{Running, Taskbay},
};

mod processes;
mod secrets;

/// A host with the misbehaving plugin, and its database.
struct Workplace {
    database: TestDatabase,
    folder: tempfile::TempDir,
}

impl Workplace {
    async fn new() -> Self {
        let (database, folder) = (TestDatabase::installed().await, tasks_folder());
        install_plugin(folder.path(), "misbehaving");
        Self { database, folder }
    }

    fn run(&self) -> Taskbay {
        Taskbay::run(&self.database.url(), self.folder.path())
    }

    /// What a process of the plugin sees.
    async fn look_around(&self, host: &Running) -> Seen {
        let id = self.database.add("look_around", json!({})).await;
        let line = host.line(|line| line["message"] == "what I see" && line["job"] == id).await;
        let fields: Value = serde_json::from_str(line["fields"].as_str().expect("fields")).expect("JSON");
        Seen(serde_json::from_str(fields["seen"].as_str().expect("what it sees")).expect("JSON"))
    }
}

/// What `look_around` of the misbehaving plugin tells.
struct Seen(Value);

impl Seen {
    fn files(&self) -> Vec<&str> {
        self.0["files"].as_array().expect("a list").iter().map(|file| file.as_str().expect("a path")).collect()
    }

    /// What follows a name at the start of a line of /proc/self/status.
    #[track_caller]
    fn status(&self, name: &str) -> Vec<&str> {
        let status = self.0["status"].as_str().expect("a text");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim_start_matches(':').split_whitespace().collect()
    }

    /// The soft and the hard limit of this name.
    #[track_caller]
    fn limits(&self, name: &str) -> Vec<&str> {
        let limits = self.0["limits"].as_str().expect("a text");
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.split_whitespace().take(2).collect()
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.0["environment"][name].as_str()
    }
}
