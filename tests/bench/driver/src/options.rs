//! What the command line says.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use clap::Parser;

use crate::{
    contender::{CONTENDERS, Contender},
    rows::{ROWS, Row},
};

/// Compares Taskbay with other job queues on one fresh Postgres
#[derive(Debug, Parser)]
#[command(name = "scripts/bench")]
pub struct Options {
    /// Measure only these rows
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Measure only these contenders
    #[arg(long, value_name = "CONTENDER", value_delimiter = ',')]
    pub contenders: Vec<String>,
    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: usize,
    /// How many jobs a drain has; all other numbers of jobs follow it
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub jobs: u32,
    /// After how many seconds a drain is broken off; its rate is then that of the jobs done so far
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    pub limit: u64,
    /// Few jobs and one round, to see whether the comparison itself works
    #[arg(long)]
    pub quick: bool,
    /// Write all single figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the tables of docs/benchmarks.md to this file
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Say which rows and contenders there are, and end
    #[arg(long)]
    pub list: bool,
    /// The folder of the repository
    #[arg(long, hide = true)]
    pub repository: PathBuf,
    /// The folder with initdb and postgres
    #[arg(long, hide = true)]
    pub postgres: PathBuf,
    /// The folder with the npm packages
    #[arg(long, hide = true)]
    pub node_modules: PathBuf,
}

impl Options {
    /// As `--quick` changes them.
    pub fn read() -> Self {
        let mut options = Self::parse();
        if options.quick {
            options.rounds = 1;
            options.jobs = options.jobs.min(4_000);
            options.limit = options.limit.min(30);
        }
        options
    }

    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }

    /// The rows that are wanted, in their own order.
    pub fn rows(&self) -> Result<Vec<&'static Row>> {
        chosen("row", &self.only, ROWS, |row| row.name)
    }

    /// The contenders that are wanted, in their own order.
    pub fn contenders(&self) -> Result<Vec<&'static Contender>> {
        chosen("contender", &self.contenders, CONTENDERS, |contender| contender.name)
    }
}

fn chosen<T>(what: &str, names: &[String], all: &'static [T], name: fn(&T) -> &'static str) -> Result<Vec<&'static T>> {
    if let Some(unknown) = names.iter().find(|wanted| !all.iter().any(|one| name(one) == wanted.as_str())) {
        let known: Vec<&str> = all.iter().map(name).collect();
        bail!("there is no {what} {unknown:?}; there are {}", known.join(", "));
    }
    Ok(all.iter().filter(|one| names.is_empty() || names.iter().any(|wanted| wanted == name(one))).collect())
}
