//! Who is compared. A new contender is one more entry of [`CONTENDERS`], and if it is a program of another kind, one more
//! [`Program`].

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::{bench::Bench, fleet::Fleet, store::Store};

/// Somebody who works jobs.
#[derive(Debug)]
pub struct Contender {
    pub name: &'static str,
    /// What it is, for the table.
    pub about: &'static str,
    pub store: Store,
    pub program: Program,
    /// How many processes work together.
    pub processes: usize,
}

#[derive(Debug, Clone, Copy)]
pub enum Program {
    /// `taskbay run`, with this in its `taskbay.toml`.
    Taskbay { settings: &'static str },
    /// `tests/bench/node/work.cjs`, with the tuning that its authors publish or without.
    Node { tuned: bool },
    /// `peers NAME work`.
    Peer(&'static str),
    /// The same, which only takes jobs of the task `noop`: what Postgres itself can do.
    Bare(&'static str),
}

/// All ratios are to the first.
pub const CONTENDERS: &[Contender] = &[
    Contender {
        name: "taskbay",
        about: "Taskbay, all defaults: plugins in processes of their own",
        store: Store::Graphile,
        program: Program::Taskbay { settings: "" },
        processes: 1,
    },
    Contender {
        name: "taskbay-in-process",
        about: "Taskbay with `isolation = \"in-process\"`",
        store: Store::Graphile,
        program: Program::Taskbay { settings: "[plugins.default]\nisolation = \"in-process\"\n" },
        processes: 1,
    },
    Contender {
        name: "taskbay-marked",
        about: "Taskbay with `claim = \"marked\"`: without the express lane",
        store: Store::Graphile,
        program: Program::Taskbay { settings: "[worker]\nclaim = \"marked\"\n" },
        processes: 1,
    },
    Contender {
        name: "node",
        about: "npm graphile-worker, all defaults",
        store: Store::Graphile,
        program: Program::Node { tuned: false },
        processes: 1,
    },
    Contender {
        name: "node-tuned",
        about: "npm graphile-worker with the tuning that its authors publish",
        store: Store::Graphile,
        program: Program::Node { tuned: true },
        processes: 1,
    },
    Contender {
        name: "node-tuned-x2",
        about: "the same, two processes",
        store: Store::Graphile,
        program: Program::Node { tuned: true },
        processes: 2,
    },
    Contender {
        name: "node-tuned-x4",
        about: "the same, four processes",
        store: Store::Graphile,
        program: Program::Node { tuned: true },
        processes: 4,
    },
    Contender {
        name: "graphile_worker",
        about: "crate graphile_worker: concurrency 500, local queue 5,000, batch delays 5 ms, poll 5 ms",
        store: Store::GraphileCrate,
        program: Program::Peer("graphile_worker"),
        processes: 1,
    },
    Contender {
        name: "awa",
        about: "crate awa as in its quick start, 256 workers",
        store: Store::Awa,
        program: Program::Peer("awa"),
        processes: 1,
    },
    Contender {
        name: "riverqueue",
        about: "crate riverqueue as in its quick start, 2,000 workers",
        store: Store::River,
        program: Program::Peer("riverqueue"),
        processes: 1,
    },
    Contender {
        name: "bare-marked",
        about: "a bare client that marks 500 by one update and deletes them by another statement, and does nothing else",
        store: Store::Graphile,
        program: Program::Bare("bare-marked"),
        processes: 1,
    },
    Contender {
        name: "bare-express",
        about: "a bare client that selects 500 for update and deletes them in one transaction, and does nothing else",
        store: Store::Graphile,
        program: Program::Bare("bare-express"),
        processes: 1,
    },
];

/// What differs between the rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start<'a> {
    /// How many jobs run at once, over all processes, if that is not left to the contender.
    pub concurrency: Option<usize>,
    /// Where jobs of the task `stamp` write to.
    pub stamps: Option<&'a std::path::Path>,
}

impl Contender {
    /// Whether it runs jobs, rather than only taking them away.
    pub fn runs_jobs(&self) -> bool {
        !matches!(self.program, Program::Bare(_))
    }

    /// Why it cannot take part, if so.
    pub fn missing(&self, bench: &Bench) -> Option<&'static str> {
        match self.program {
            Program::Taskbay { settings } if settings.contains("claim") && !bench.taskbay_knows("--claim") => {
                Some("this build of Taskbay has no setting `claim`")
            }
            _ => None,
        }
    }

    /// Starts its processes.
    pub fn start(&self, bench: &Bench, url: &str, how: Start<'_>) -> Result<Fleet> {
        let mut fleet = Fleet::new(self.name, bench.folder());
        for number in 0..self.processes {
            let mut command = self.command(bench, url)?;
            // The gate tells the processes apart by this.
            command.env("PGAPPNAME", format!("bench-{number}"));
            if let Some(stamps) = how.stamps {
                command.env("BENCH_STAMPS", stamps);
            }
            if let Some(concurrency) = how.concurrency {
                let of_each = concurrency.div_ceil(self.processes).to_string();
                match self.program {
                    Program::Taskbay { .. } => command.args(["--jobs", &of_each]),
                    _ => command.env("BENCH_CONCURRENCY", of_each),
                };
            }
            fleet.add(command)?;
        }
        Ok(fleet)
    }

    fn command(&self, bench: &Bench, url: &str) -> Result<Command> {
        Ok(match self.program {
            Program::Taskbay { settings } => {
                let home = bench.folder().join(self.name);
                let tasks = home.join("tasks");
                if !tasks.exists() {
                    std::fs::create_dir_all(&tasks).context("make a tasks folder")?;
                    std::fs::copy(&bench.paths.plugin, tasks.join("libbench_tasks.so")).context("copy the plugin")?;
                    std::fs::write(home.join("taskbay.toml"), settings).context("write taskbay.toml")?;
                }
                let mut command = bench.program(&bench.paths.taskbay, url);
                command.current_dir(home).args(["run", "tasks"]);
                command
            }
            Program::Node { tuned } => {
                let mut command = bench.node("work.cjs", url);
                if tuned {
                    command.env("BENCH_TUNED", "1");
                }
                command
            }
            Program::Peer(name) | Program::Bare(name) => {
                let mut command = bench.program(&bench.paths.peers, url);
                command.args([name, "work"]);
                command
            }
        })
    }
}
