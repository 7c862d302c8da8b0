//! What a job costs on each runner, beside a plain call of the same function: `cargo bench --bench cost_of_a_job`.
//!
//! Nothing of Postgres is in it. The task reads a payload of about 200 bytes into a typed struct and does nothing more.
#![allow(unreachable_pub, reason = "nobody uses a benchmark")]

#[path = "../harness/plugins.rs"]
#[allow(dead_code, reason = "made for the tests, of which this needs a part")]
mod plugins;

use std::{
    fs,
    future::Future,
    hint::black_box,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use taskbay::{
    events::Events,
    plugin::{AddJob, BuildId, Cancel, Generation, HostServices, Image, Isolation, JobInput, Outcome, PluginSettings},
};

const ROUNDS: usize = 5;
const AT_ONCE: usize = 64;

#[derive(Debug)]
struct NoJobs;

impl AddJob for NoJobs {
    fn add_job(&self, _spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>> {
        Box::pin(async { Err("there is no database here".to_owned()) })
    }
}

#[derive(serde::Deserialize)]
struct Greeting {
    to: String,
    times: u32,
}

/// The task `greet` of `typed-plugin`, without a plugin.
fn greet(payload: &str) -> Result<(), serde_json::Error> {
    let greeting: Greeting = serde_json::from_str(payload)?;
    for _ in 0..greeting.times {
        black_box(&greeting.to);
    }
    Ok(())
}

/// The best of several rounds, per job: on a busy machine the others measure the neighbours.
struct Cost {
    alone: Duration,
    at_once: Duration,
}

#[tokio::main]
async fn main() {
    let payload = format!(r#"{{"to": "{}", "times": 0}}"#, "y".repeat(170));
    let call = plain_call(&payload);
    println!("\n{:<24}{:>14}{:>18}{:>18}", "", "one at a time", "64 at once", "of a plain call");
    print("plain function call", &Cost { alone: call, at_once: call }, call);
    for (name, isolation) in [("in process", Isolation::InProcess), ("child process", Isolation::Child)] {
        print(name, &on_runner(isolation, &payload).await, call);
    }
}

fn print(name: &str, cost: &Cost, call: Duration) {
    let times = cost.at_once.as_secs_f64() / call.as_secs_f64();
    println!("{name:<24}{:>14}{:>18}{:>17.1}x", format!("{:.2?}", cost.alone), format!("{:.2?}", cost.at_once), times);
}

fn plain_call(payload: &str) -> Duration {
    const CALLS: u32 = 200_000;
    let round = || {
        let started = Instant::now();
        for _ in 0..CALLS {
            black_box(greet(black_box(payload))).expect("the payload fits");
        }
        started.elapsed() / CALLS
    };
    (0..ROUNDS).map(|_| round()).min().expect("there are rounds")
}

async fn on_runner(isolation: Isolation, payload: &str) -> Cost {
    let bytes = fs::read(plugins::plugin("typed-plugin")).expect("read the plugin");
    let image = Image::seal("libtyped_plugin.so", BuildId([0; 32]), &bytes).expect("copy the plugin");
    let services = HostServices {
        add_job: Arc::new(NoJobs),
        events: Events::default(),
        program: env!("CARGO_BIN_EXE_taskbay").into(),
    };
    let settings = PluginSettings { isolation, ..PluginSettings::default() };
    let generation = Generation::launch(Arc::new(image), &settings, &services).await.expect("start the plugin");
    let task = generation.tasks().iter().position(|task| task.name == "greet").expect("the plugin has the task");
    let task = u32::try_from(task).expect("few tasks");

    let mut cost = Cost { alone: Duration::MAX, at_once: Duration::MAX };
    for _ in 0..ROUNDS {
        cost.alone = cost.alone.min(time(&generation, task, payload, 1, 4_000).await);
        cost.at_once = cost.at_once.min(time(&generation, task, payload, AT_ONCE, 1_000).await);
    }
    generation.retire().await;
    cost
}

async fn time(generation: &Generation, task: u32, payload: &str, lanes: usize, each: usize) -> Duration {
    let cancel = Cancel::default();
    let job = job(payload);
    let started = Instant::now();
    let lane = || async {
        for _ in 0..each {
            assert_eq!(generation.run(task, &job, &cancel).await, Outcome::Done);
        }
    };
    futures_util::future::join_all((0..lanes).map(|_| lane())).await;
    started.elapsed() / u32::try_from(lanes * each).expect("few jobs")
}

fn job(payload: &str) -> JobInput<'_> {
    JobInput {
        id: 1,
        task: "greet",
        attempt: 1,
        max_attempts: 25,
        priority: 0,
        revision: 0,
        run_at_us: 0,
        created_at_us: 0,
        updated_at_us: 0,
        payload,
        queue: None,
        key: None,
        last_error: None,
        flags: None,
    }
}
