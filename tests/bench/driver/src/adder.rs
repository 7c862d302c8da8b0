//! Adds jobs of the task `stamp` one by one, in the way that a program would that uses the contender.

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    sync::oneshot,
};
use tokio_postgres::{Client, Statement};

use crate::{bench::Bench, clock, contender::Contender, database::Database, store::Store};

/// How many connections share the calls if they come fast.
const CONNECTIONS: usize = 16;

/// One call: just before it, and when its commit was known.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub began: i64,
    pub ended: i64,
}

#[derive(Debug)]
pub enum Adder {
    /// By the function of the schema, over connections of this process.
    Function { clients: Vec<(Client, Statement)>, next: AtomicUsize },
    /// By the library of the contender, in a process of its own.
    Library { _process: Box<Child>, input: tokio::sync::Mutex<ChildStdin>, waiting: Waiting },
}

/// Who waits for the answers of the process.
type Waiting = Arc<Mutex<HashMap<i64, oneshot::Sender<Call>>>>;

impl Adder {
    pub async fn start(bench: &Bench, contender: &Contender, database: &Database) -> Result<Self> {
        let peer = match contender.store {
            Store::Graphile | Store::GraphileCrate => {
                let mut clients = Vec::new();
                for _ in 0..CONNECTIONS {
                    let client = bench.server.connect(&database.name).await?;
                    let call = "select id from graphile_worker.add_job('stamp', json_build_object('n', $1::int8))";
                    let call = client.prepare(call).await.context("prepare to add a job")?;
                    clients.push((client, call));
                }
                return Ok(Self::Function { clients, next: AtomicUsize::new(0) });
            }
            Store::Awa => "awa",
            Store::River => "riverqueue",
        };
        let mut command = bench.program(&bench.paths.peers, &database.url);
        command.args([peer, "add-each", "stamp"]).stdin(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().context("start the program that adds jobs")?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("the program that adds jobs has no input or output")
        };
        let mut lines = BufReader::new(output).lines();
        lines.next_line().await?.context("the program that adds jobs ended at once")?;
        let waiting = Waiting::default();
        tokio::spawn(answers(lines, Arc::clone(&waiting)));
        Ok(Self::Library { _process: Box::new(process), input: tokio::sync::Mutex::new(input), waiting })
    }

    /// Adds one.
    pub async fn add(&self, n: i64) -> Result<Call> {
        match self {
            Self::Function { clients, next } => {
                let (client, call) = &clients[next.fetch_add(1, Ordering::Relaxed) % clients.len()];
                let began = clock::now();
                client.query_one(call, &[&n]).await.with_context(|| format!("add job {n}"))?;
                Ok(Call { began, ended: clock::now() })
            }
            Self::Library { input, waiting, .. } => {
                let (send, receive) = oneshot::channel();
                waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(n, send);
                input.lock().await.write_all(format!("{n}\n").as_bytes()).await.context("tell which job to add")?;
                receive.await.with_context(|| format!("job {n} was not added"))
            }
        }
    }
}

/// Hands them to those who wait, who hear of its end when this is dropped.
async fn answers(mut lines: Lines<BufReader<ChildStdout>>, waiting: Waiting) {
    while let Ok(Some(line)) = lines.next_line().await {
        let mut numbers = line.split(' ').filter_map(|number| number.parse().ok());
        if let (Some(n), Some(began), Some(ended)) = (numbers.next(), numbers.next(), numbers.next())
            && let Some(send) = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&n)
        {
            let _ = send.send(Call { began, ended });
        }
    }
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
