//! What a job costs on each runner, beside a plain call of the same function: `cargo bench --bench cost_of_a_job`.
//!
//! Nothing of Postgres is in it. The task reads a payload of about 200 bytes into a typed struct and does nothing more.
//! Each job in flight has a task of the runtime to itself, as in a pool. What counts beside the time that passes is the time
//! of processors, since Postgres wants them, too.
#![allow(unreachable_pub, reason = "nobody uses a benchmark")]

#[path = "../harness/plugins.rs"]
#[allow(dead_code, reason = "made for the tests, of which this needs a part")]
mod plugins;

use std::{
    collections::HashMap,
    fs,
    future::Future,
    hint::black_box,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use taskbay::{
    events::Events,
    plugin::{AddJob, BuildId, Cancel, Generation, HostServices, Image, Isolation, JobInput, Outcome, PluginSettings},
};

/// The best of these counts: on a busy machine the others measure the neighbours.
const ROUNDS: usize = 7;
const IN_FLIGHT: [usize; 4] = [1, 10, 64, 500];

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

/// What one job took.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    /// Of processors, in this process and in the plugin's.
    here: Duration,
    there: Duration,
}

impl Cost {
    const NONE: Self = Self { wall: Duration::MAX, here: Duration::MAX, there: Duration::MAX };

    fn least(self, other: Self) -> Self {
        Self { wall: self.wall.min(other.wall), here: self.here.min(other.here), there: self.there.min(other.there) }
    }
}

#[tokio::main]
async fn main() {
    let payload = format!(r#"{{"to": "{}", "times": 0}}"#, "y".repeat(170));
    println!("\n{:<24}{:>10}{:>12}{:>16}{:>18}", "", "in flight", "passes", "CPU in host", "CPU in plugin's");
    let call = plain_call(&payload);
    println!("{:<24}{:>10}{:>12}{:>16}", "plain function call", 1, format!("{call:.0?}"), format!("{call:.0?}"));
    // Words after `--` choose a runner and a number in flight.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, isolation) in [("in process", Isolation::InProcess), ("child process", Isolation::Child)] {
        let asked =
            |in_flight: usize| words.iter().all(|word| name.contains(word.as_str()) || *word == in_flight.to_string());
        let in_flight: Vec<usize> = IN_FLIGHT.into_iter().filter(|in_flight| asked(*in_flight)).collect();
        if !in_flight.is_empty() {
            on_runner(name, isolation, &payload, &in_flight).await;
        }
    }
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

async fn on_runner(name: &str, isolation: Isolation, payload: &str, numbers: &[usize]) {
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

    for &in_flight in numbers {
        let jobs = if in_flight == 1 { 5_000 } else { 100_000 };
        let mut cost = Cost::NONE;
        for _ in 0..ROUNDS {
            cost = cost.least(round(&generation, task, payload, in_flight, jobs / in_flight).await);
        }
        let Cost { wall, here, there } = cost;
        let [wall, here, there] = [wall, here, there].map(|time| format!("{time:.2?}"));
        println!("{name:<24}{in_flight:>10}{wall:>12}{here:>16}{there:>18}");
    }
    generation.retire().await;
}

async fn round(generation: &Arc<Generation>, task: u32, payload: &str, lanes: usize, each: usize) -> Cost {
    let jobs = u32::try_from(lanes * each).expect("few jobs");
    let (here, there) = (cpu_of(std::process::id()), cpu_of_children());
    let cancel = Cancel::default();
    let started = Instant::now();
    let lane = || {
        let (generation, payload, cancel) = (Arc::clone(generation), payload.to_owned(), cancel.clone());
        tokio::spawn(async move {
            let job = job(&payload);
            for _ in 0..each {
                assert_eq!(generation.run(task, &job, &cancel).await, Outcome::Done);
            }
        })
    };
    for lane in (0..lanes).map(|_| lane()).collect::<Vec<_>>() {
        lane.await.expect("no panic");
    }
    Cost {
        wall: started.elapsed() / jobs,
        here: spent(&here, &cpu_of(std::process::id())) / jobs,
        there: spent(&there, &cpu_of_children()) / jobs,
    }
}

/// What each thread of a process has had of the processors.
fn cpu_of(process: u32) -> HashMap<PathBuf, u64> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return HashMap::new() };
    let of_thread = |folder: &Path| -> Option<u64> {
        fs::read_to_string(folder.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    let threads = threads.flatten().map(|thread| thread.path());
    threads.filter_map(|thread| of_thread(&thread).map(|nanos| (thread, nanos))).collect()
}

fn cpu_of_children() -> HashMap<PathBuf, u64> {
    let ours = std::process::id().to_string();
    let is_ours = |process: u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // After the name, which may have anything in it, come the state and the parent.
        stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)) == Some(ours.as_str())
    };
    let processes = fs::read_dir("/proc").expect("read /proc").flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|process| is_ours(*process)).flat_map(cpu_of).collect()
}

/// What they have had since.
fn spent(before: &HashMap<PathBuf, u64>, now: &HashMap<PathBuf, u64>) -> Duration {
    let spent = now.iter().map(|(thread, nanos)| nanos - before.get(thread).unwrap_or(&0));
    Duration::from_nanos(spent.sum())
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
