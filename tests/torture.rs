//! Hosts and a Node worker under everything that can go wrong at once, as a seed says. What the jobs write down shows whether all
//! promises were kept.
//!
//! The seed settles what is done and in which order, not how the machine's own timing falls in between.

mod adversary;
mod arena;
mod harm;
mod invariants;
mod load;
mod near_misses;
mod runs;

use std::{env, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use adversary::Adversary;
use arena::Arena;
use load::Load;

/// What CI runs.
const SEED: u64 = 20_260;
const MINUTES: f64 = 0.75;

fn from_environment<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    let Ok(text) = env::var(name) else { return otherwise };
    text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}"))
}

/// Shown when the test fails, too.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        println!("the seed was {0}; TASKBAY_TORTURE_SEED={0} does the same again", self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_every_job_is_done_or_fails_by_the_rules() {
    let seed = Seed(from_environment("TASKBAY_TORTURE_SEED", SEED));
    let time = Duration::from_secs_f64(60.0 * from_environment("TASKBAY_TORTURE_MINUTES", MINUTES));
    println!("seed {}, {time:?}", seed.0);
    let mut arena = Arena::new().await;
    let load = Load::start(&arena.place.cluster);
    let mut adversary = Adversary::new(StdRng::seed_from_u64(seed.0));
    let until = Instant::now() + time;
    while Instant::now() < until {
        adversary.strike(&mut arena).await;
        arena.see_that_they_live();
    }
    let takeovers = arena.takeovers();
    adversary.make_up(&mut arena).await;
    let added = load.finish().await;
    let stopped = Instant::now();
    arena.stop_node().await;
    arena.drain().await;
    println!(
        "{} jobs added; hosts taken for dead meanwhile: {takeovers}; everything was done {:?} after the adversary had stopped",
        added.certain.len(),
        stopped.elapsed()
    );
    invariants::check(&arena, &adversary, &added).await;
    for host in &mut arena.hosts {
        host.take().expect("it was started again").stop().await;
    }
}
