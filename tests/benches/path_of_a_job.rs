//! The steps of a job's way, each by itself: `cargo bench --bench path_of_a_job`.
//!
//! Of claiming and completing it is the time of processors in this process that counts: the statements are sent, and the
//! answers decoded, while Postgres has processors of its own. Of dispatching it is the time that passes.
#![allow(unreachable_pub, missing_debug_implementations, reason = "nobody uses a benchmark")]

#[path = "../harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "made for the tests, of which this needs a part")]
mod harness;

use std::{
    fs,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{
    BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use rustix::time::{ClockId, clock_gettime};
use taskbay::{
    events::Events,
    plugin::{
        AddJob, BuildId, BuiltInTask, Cancel, Generation, HostServices, Image, Isolation, JobInput, Outcome,
        PluginSettings, TaskCode, TaskEnd, TaskRun, TaskSpec,
    },
    queue::{ClaimedJob, Conditions, Job, NewJob, Session, Settlement, TaskIds},
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use harness::postgres::TestDatabase;

const CLAIM: usize = 500;
const OWNER: &str = "taskbay-bench";
const IN_FLIGHT: [usize; 3] = [1, 10, 500];

/// What this process had of the processors.
struct CpuTime;

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("less than a second"))
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu()
    }

    fn end(&self, start: Duration) -> Duration {
        cpu() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// A database with one task whose jobs look like real ones.
struct Queue {
    _test: TestDatabase,
    session: Session,
    task: TaskIds,
    jobs: Vec<NewJob>,
}

impl Queue {
    async fn new() -> Self {
        let test = TestDatabase::new().await;
        let database = test.database();
        taskbay::migrate::prepare(&database).await.expect("install the schema");
        let session = database.session().await.expect("connect");
        session.prepare_express().await.expect("prepare");
        let task = session.task_ids(&["t"]).await.expect("number the task");
        let job = |id: usize| {
            let payload = serde_json::json!({ "id": id, "to": format!("{id}@example.org"), "body": "y".repeat(120) });
            NewJob::with_payload("t", &payload).expect("a payload")
        };
        Self { _test: test, session, task, jobs: (0..CLAIM).map(job).collect() }
    }

    async fn fill(&self) {
        self.session.add_jobs(&self.jobs).await.expect("add the jobs");
    }

    async fn claim(&self) -> Vec<Job> {
        self.session.get_jobs(OWNER, &self.task, CLAIM, Conditions::default()).await.expect("claim")
    }

    async fn lock(&self) -> Vec<Job> {
        self.session.lock_jobs(&self.task, CLAIM, Conditions::default()).await.expect("lock")
    }

    async fn complete(&self, jobs: &[Job]) -> usize {
        let jobs: Vec<ClaimedJob> = jobs.iter().map(ClaimedJob::of).collect();
        self.session.complete_jobs(OWNER, &jobs).await.expect("complete").len()
    }

    async fn settle(&self, jobs: &[Job]) -> usize {
        let done: Vec<i64> = jobs.iter().map(|job| job.id).collect();
        let settlement = Settlement { done, ..Settlement::default() };
        self.session.settle(OWNER, &settlement).await.expect("settle");
        jobs.len()
    }
}

fn claim_and_complete(criterion: &mut Criterion<CpuTime>) {
    let runtime = Runtime::new().expect("a runtime");
    let queue = runtime.block_on(Queue::new());
    let mut group = criterion.benchmark_group("500 jobs, CPU of this process");
    group.throughput(Throughput::Elements(CLAIM as u64));
    // What is measured of a round: the first half or the second.
    for (name, express, second) in [
        ("claim, marked lane", false, false),
        ("complete, marked lane", false, true),
        ("claim, express lane", true, false),
        ("complete, express lane", true, true),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                runtime.block_on(async {
                    let mut spent = Duration::ZERO;
                    for _ in 0..rounds {
                        queue.fill().await;
                        let started = cpu();
                        let jobs = if express { queue.lock().await } else { queue.claim().await };
                        let between = cpu();
                        assert_eq!(jobs.len(), CLAIM);
                        let before = cpu();
                        let count = if express { queue.settle(&jobs).await } else { queue.complete(&jobs).await };
                        spent += if second { cpu() - before } else { between - started };
                        assert_eq!(count, CLAIM);
                    }
                    spent
                })
            });
        });
    }
    group.finish();
}

/// Does nothing.
struct Nothing;

impl TaskCode for Nothing {
    fn run(&self, _job: &JobInput<'_>, _cancelled: CancellationToken) -> TaskRun {
        Box::pin(ready(TaskEnd::Done))
    }
}

#[derive(Debug)]
struct NoJobs;

impl AddJob for NoJobs {
    fn add_job(&self, _spec: String) -> Pin<Box<dyn Future<Output = Result<i64, String>> + Send + '_>> {
        Box::pin(ready(Err("there is no database here".to_owned())))
    }
}

fn built_in() -> Arc<Generation> {
    let spec = TaskSpec {
        name: "greet".to_owned(),
        description: String::new(),
        timeout: None,
        max_attempts: None,
        schedules: Vec::new(),
    };
    let task = BuiltInTask { spec, code: Arc::new(Nothing) };
    Generation::built_in(vec![task], &PluginSettings::default(), Events::default()).expect("a task by the rules")
}

async fn plugin(isolation: Isolation) -> Arc<Generation> {
    let bytes = fs::read(harness::plugins::plugin("typed-plugin")).expect("read the plugin");
    let image = Image::seal("libtyped_plugin.so", BuildId([0; 32]), &bytes).expect("copy the plugin");
    let services = HostServices {
        add_job: Arc::new(NoJobs),
        events: Events::default(),
        program: env!("CARGO_BIN_EXE_taskbay").into(),
    };
    let settings = PluginSettings { isolation, ..PluginSettings::default() };
    Generation::launch(Arc::new(image), &settings, &services).await.expect("start the plugin")
}

fn dispatch(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("dispatch");
    for (name, generation) in [
        ("built-in", runtime.block_on(async { built_in() })),
        ("in-process", runtime.block_on(plugin(Isolation::InProcess))),
        ("child", runtime.block_on(plugin(Isolation::Child))),
    ] {
        for in_flight in IN_FLIGHT {
            group.throughput(Throughput::Elements(in_flight as u64));
            group.bench_with_input(BenchmarkId::new(name, in_flight), &in_flight, |bencher, in_flight| {
                bencher.iter_custom(|rounds| runtime.block_on(run(&generation, *in_flight, rounds)));
            });
        }
        runtime.block_on(generation.retire());
    }
    group.finish();
}

/// Has each of so many tasks of the runtime run so many jobs.
async fn run(generation: &Arc<Generation>, lanes: usize, each: u64) -> Duration {
    let task = generation.tasks().iter().position(|task| task.name == "greet").expect("it has the task");
    let task = u32::try_from(task).expect("few tasks");
    let cancel = Cancel::default();
    let started = Instant::now();
    let lanes: Vec<_> = (0..lanes)
        .map(|_| {
            let (generation, cancel) = (Arc::clone(generation), cancel.clone());
            tokio::spawn(async move {
                for _ in 0..each {
                    assert_eq!(generation.run(task, &JOB, &cancel).await, Outcome::Done);
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.expect("no panic");
    }
    started.elapsed()
}

const JOB: JobInput<'static> = JobInput {
    id: 1,
    task: "greet",
    attempt: 1,
    max_attempts: 25,
    priority: 0,
    revision: 0,
    run_at_us: 0,
    created_at_us: 0,
    updated_at_us: 0,
    payload: r#"{"to": "somebody@example.org", "times": 0, "more": "of what a payload has, to make it as long as they are"}"#,
    queue: None,
    key: None,
    last_error: None,
    flags: None,
};

fn short<M: Measurement>(criterion: Criterion<M>) -> Criterion<M> {
    criterion.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = by_cpu;
    config = short(Criterion::default().with_measurement(CpuTime));
    targets = claim_and_complete
}
criterion_group! {
    name = by_time;
    config = short(Criterion::default());
    targets = dispatch
}
criterion_main!(by_cpu, by_time);
