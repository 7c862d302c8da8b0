//! What the figures were measured on, and with.

use std::fs;

use anyhow::Result;
use tokio::process::Command;

use crate::{bench::Bench, options::Options, server::SETTINGS};

/// A line each.
#[derive(Debug)]
pub struct Machine {
    pub about: Vec<(&'static str, String)>,
}

impl Machine {
    pub async fn look(bench: &Bench, options: &Options) -> Result<Self> {
        let client = bench.server.connect("postgres").await?;
        let postgres: String = client.query_one("select version()", &[]).await?.get(0);
        let postgres = postgres.split(" on ").next().unwrap_or_default().to_owned();
        let mut taskbay = first_line(Command::new(&bench.paths.taskbay).arg("--version")).await;
        let mut commit = Command::new("git");
        commit.arg("-C").arg(&options.repository).args(["describe", "--always", "--dirty"]);
        let commit = first_line(&mut commit).await;
        if !commit.is_empty() {
            taskbay = format!("{taskbay} ({commit})");
        }
        let lock = fs::read_to_string(options.repository.join("tests/bench/Cargo.lock")).unwrap_or_default();
        let crates = ["graphile_worker", "awa", "riverqueue", "tokio-postgres"]
            .map(|name| format!("{name} {}", locked_version(&lock, name)))
            .join(", ");
        let package = fs::read_to_string(bench.paths.node_modules.join("graphile-worker/package.json"));
        let package: serde_json::Value = serde_json::from_str(&package.unwrap_or_default()).unwrap_or_default();
        let npm = format!("graphile-worker {}", package["version"].as_str().unwrap_or("?"));
        Ok(Self {
            about: vec![
                ("processor", format!("{}, {} cores", processor(), std::thread::available_parallelism()?)),
                ("memory", memory()),
                ("kernel", format!("Linux {}", read("/proc/sys/kernel/osrelease"))),
                ("rustc", first_line(Command::new("rustc").arg("--version")).await),
                ("Postgres", format!("{postgres}, as installed but for {}", SETTINGS.join(", "))),
                ("Taskbay", taskbay),
                ("crates", crates),
                ("npm", format!("{npm}, on Node {}", first_line(Command::new("node").arg("--version")).await)),
            ],
        })
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn processor() -> String {
    let about = read("/proc/cpuinfo");
    let model = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.to_owned())
}

fn memory() -> String {
    let about = read("/proc/meminfo");
    let total = about.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    format!("{:.0} GB", total.unwrap_or(0.0) * 1024.0 / 1e9)
}

fn locked_version<'a>(lock: &'a str, name: &str) -> &'a str {
    let package = format!("name = \"{name}\"\nversion = \"");
    lock.split_once(&package).and_then(|(_, rest)| rest.split('"').next()).unwrap_or("?")
}

async fn first_line(command: &mut Command) -> String {
    let output = command.output().await.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
}
