//! The other job queues, each as its documentation recommends, and the bare clients that show what Postgres itself can do.
//!
//!     peers CONTENDER prepare          installs its schema
//!     peers CONTENDER add TASK COUNT   adds jobs whose payload is {"n": 0}, {"n": 1} …; says how long that took
//!     peers CONTENDER add-each TASK    adds a job for each number that its input lists; says when each call began and ended
//!     peers CONTENDER work             works them, says "ready", ends at SIGTERM
//!
//! The database is DATABASE_URL, and BENCH_CONCURRENCY says how many jobs may run at once if that is not left to the
//! contender's usual setting. Handlers are in `tasks.rs`. Times are by the clock that all processes share, in nanoseconds.

mod awa_queue;
mod bare_client;
mod clock;
mod graphile_worker_rs;
mod river;
mod taskbay_library;
mod tasks;

use std::{future::Future, time::Instant};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    signal::unix::{SignalKind, signal},
};

/// The most jobs that are added by one call.
const BATCH: usize = 10_000;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let url = std::env::var("DATABASE_URL").context("DATABASE_URL names the database")?;
    match arguments[..] {
        ["graphile_worker", "prepare"] => graphile_worker_rs::prepare(&url).await,
        ["graphile_worker", "add", task, count] => graphile_worker_rs::add(&url, task, count.parse()?).await,
        ["graphile_worker", "work"] => graphile_worker_rs::work(&url).await,
        ["awa", "prepare"] => awa_queue::prepare(&url).await,
        ["awa", "add", task, count] => awa_queue::add(&url, task, count.parse()?).await,
        ["awa", "add-each", task] => awa_queue::add_each(&url, task).await,
        ["awa", "work"] => awa_queue::work(&url).await,
        ["riverqueue", "prepare"] => river::prepare(&url).await,
        ["riverqueue", "add", task, count] => river::add(&url, task, count.parse()?).await,
        ["riverqueue", "add-each", task] => river::add_each(&url, task).await,
        ["riverqueue", "work"] => river::work(&url).await,
        ["taskbay", "add", task, count] => taskbay_library::add(&url, task, count.parse()?).await,
        ["bare-marked", "work"] => bare_client::work(&url, bare_client::Lane::Marked).await,
        ["bare-express", "work"] => bare_client::work(&url, bare_client::Lane::Express).await,
        _ => bail!(
            "usage: peers graphile_worker|awa|riverqueue|taskbay|bare-marked|bare-express \
             prepare|add TASK COUNT|add-each TASK|work"
        ),
    }
}

/// Tells that jobs are worked from here on, and waits for the signal to stop.
async fn ready_until_stopped() -> Result<()> {
    let mut stop = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    println!("ready");
    stop.recv().await;
    Ok(())
}

/// How many jobs run at once.
fn concurrency(usual: usize) -> Result<usize> {
    match std::env::var("BENCH_CONCURRENCY") {
        Ok(number) => number.parse().context("BENCH_CONCURRENCY is a number"),
        Err(_) => Ok(usual),
    }
}

/// Says how long the adding of many jobs takes, without the time to start and connect.
async fn timed<T>(adding: impl Future<Output = Result<T>>) -> Result<()> {
    let began = Instant::now();
    adding.await?;
    println!("{}", began.elapsed().as_nanos());
    Ok(())
}

/// Adds a job for each number of the input, several at once if they come that fast.
async fn each_of_the_input<F, A>(add: F) -> Result<()>
where
    F: Fn(i64) -> A,
    A: Future<Output = Result<()>> + Send + 'static,
{
    let mut lines = BufReader::new(stdin()).lines();
    println!("ready");
    while let Some(line) = lines.next_line().await? {
        let n: i64 = line.parse().context("the input is numbers, one a line")?;
        let adding = add(n);
        tokio::spawn(async move {
            let began = clock::now();
            match adding.await {
                Ok(()) => println!("{n} {began} {}", clock::now()),
                Err(error) => eprintln!("job {n} could not be added: {error:#}"),
            }
        });
    }
    Ok(())
}
