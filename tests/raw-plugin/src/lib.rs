//! A plugin written against the bare interface, for what the plugin crate does not let a plugin do: late and double ends,
//! unknown calls, jobs that ignore being stopped, crashes of every kind, and constructors that go wrong.

#![allow(unsafe_code, reason = "this is the other side of a C interface")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "breaking rules is what this plugin is for")]

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicPtr, Ordering},
    },
    thread,
    time::Duration,
};

use abi_stable::{export_root_module, prefix_type::PrefixTypeTrait};
use taskbay_abi::{
    ABI_MAJOR, ABI_MINOR, CANCEL_ABORT, CANCEL_ASK, Header, Host, INIT_CALL, Job, MAGIC, Outcome, PluginModule,
    PluginModule_Ref, Reply, STATUS_CANCELLED, STATUS_DISCARD, STATUS_ERROR, STATUS_OK, STATUS_PANIC,
    STATUS_PARTLY_FAILED, Str, TaskDef, VTable,
};

/// The tests overwrite what follows the `=` in a copy of the file, and so get builds that differ.
#[used]
static CONSTRUCTOR: [u8; 24] = *b"RAW-CONSTRUCTOR=nothing.";
/// As above, for the start-up.
#[used]
static START_UP: [u8; 24] = *b"RAW-START-UP=succeed....";

#[used]
#[unsafe(link_section = ".init_array")]
static RUN_CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    match setting(&CONSTRUCTOR).as_str() {
        "segv" => segfault(),
        "exit" => std::process::exit(3),
        "hang" => loop {
            thread::sleep(Duration::from_secs(1));
        },
        _ => {}
    }
}

/// Read as it is in the file, whatever the compiler believes to know about it.
fn setting(place: &'static [u8; 24]) -> String {
    let text = unsafe { std::ptr::read_volatile(place) };
    String::from_utf8_lossy(&text).split('=').nth(1).unwrap_or("").trim_end_matches('.').to_owned()
}

const fn scheduled(name: &'static str, schedules: &'static str) -> TaskDef {
    TaskDef { schedules: Str::new(schedules), ..task(name, 0) }
}

const fn task(name: &'static str, timeout_ms: u64) -> TaskDef {
    TaskDef {
        size: size_of::<TaskDef>() as u32,
        max_attempts: 0,
        timeout_ms,
        name: Str::new(name),
        description: Str::NONE,
        schedules: Str::NONE,
    }
}

static TASKS: [TaskDef; 24] = [
    task("ok", 0),
    task("error", 0),
    task("discard", 0),
    task("panic", 0),
    task("echo", 0),
    task("twice", 0),
    task("ask", 0),
    task("abort-only", 0),
    task("spin", 0),
    task("spin-limited", 200),
    task("release", 0),
    task("log", 0),
    task("add-job", 0),
    task("print", 0),
    task("segv", 0),
    task("abort", 0),
    task("exit", 0),
    task("overflow", 0),
    task("allocate", 0),
    task("describe", 0),
    task("pid", 0),
    task("environment", 0),
    task("partly", 0),
    scheduled("scheduled", " 0 4 * * * ?fill=1d {\"full\": true}\n\n*/5 * * * * ?id=often\n"),
];

#[unsafe(no_mangle)]
pub static TASKBAY_PLUGIN: Header = Header {
    magic: MAGIC,
    size: size_of::<Header>() as u32,
    abi_major: ABI_MAJOR,
    abi_minor: ABI_MINOR,
    reserved: 0,
    flags: 0,
    name: Str::new("raw"),
    version: Str::new("0.1.0"),
    sdk: Str::new("none"),
    profile: Str::new("debug"),
    tasks: TASKS.as_ptr(),
    task_count: TASKS.len(),
    vtable: VTable { init, start, cancel, shutdown },
};

#[export_root_module]
fn module() -> PluginModule_Ref {
    PluginModule { header: &TASKBAY_PLUGIN }.leak_into_prefix()
}

static HOST: AtomicPtr<Host> = AtomicPtr::new(std::ptr::null_mut());
/// Calls that wait to be stopped or released, with their task.
static WAITING: Mutex<Option<HashMap<u64, &'static str>>> = Mutex::new(None);
static REQUESTS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

fn host() -> &'static Host {
    unsafe { &*HOST.load(Ordering::Acquire) }
}

fn finish(call: u64, status: u32, message: &str) {
    let message = if message.is_empty() { Str::NONE } else { Str::new(message) };
    let outcome = Outcome { size: size_of::<Outcome<'_>>() as u32, status, message, detail: Str::NONE };
    unsafe { (host().finish)(host().context, call, &outcome) };
}

unsafe extern "C" fn init(host: &'static Host, settings: Str<'_>) {
    HOST.store(std::ptr::from_ref(host).cast_mut(), Ordering::Release);
    let settings = unsafe { settings.text() }.unwrap().unwrap_or("").to_owned();
    match setting(&START_UP).as_str() {
        "fail" => finish(INIT_CALL, STATUS_ERROR, &format!("no database with {settings}")),
        "hang" => {}
        "segv" => segfault(),
        _ => finish(INIT_CALL, STATUS_OK, ""),
    }
}

unsafe extern "C" fn start(task: u32, job: &Job<'_>, call: u64) {
    let name = unsafe { TASKS[task as usize].name.text() }.unwrap().unwrap();
    let payload = unsafe { job.payload.text() }.unwrap().unwrap().to_owned();
    match name {
        "ok" => finish(call, STATUS_OK, ""),
        "error" => finish(call, STATUS_ERROR, "no such address"),
        "discard" => finish(call, STATUS_DISCARD, "never will"),
        "panic" => finish(call, STATUS_PANIC, "panicked at src/lib.rs:1:2: boom"),
        "echo" => finish(call, STATUS_ERROR, &payload),
        "describe" => finish(call, STATUS_ERROR, &describe(job)),
        "pid" => finish(call, STATUS_ERROR, &std::process::id().to_string()),
        "environment" => finish(call, STATUS_ERROR, &std::env::var(&payload).unwrap_or("not set".to_owned())),
        "partly" => partly(call, &payload),
        "twice" => twice(call),
        "ask" | "abort-only" | "release" => {
            WAITING.lock().unwrap().get_or_insert_default().insert(call, name);
            log(call, "waiting");
        }
        "log" => {
            log(call, &payload);
            finish(call, STATUS_OK, "");
        }
        "add-job" => {
            REQUESTS.lock().unwrap().push(call);
            let reply = Reply { request: call, deliver: job_added };
            unsafe { (host().add_job)(host().context, call, Str::new(&payload), reply) };
        }
        _ => drop(thread::spawn(move || misbehave(name, &payload, call))),
    }
}

fn describe(job: &Job<'_>) -> String {
    let text = |text: Str<'_>| unsafe { text.text() }.unwrap().map(str::to_owned);
    let Job {
        attempt, max_attempts, priority, revision, id, run_at_us, created_at_us, updated_at_us, timeout_ms, ..
    } = *job;
    format!(
        "{id} {attempt} {max_attempts} {priority} {revision} {run_at_us} {created_at_us} {updated_at_us} {timeout_ms} {:?} {:?} {:?} {:?}",
        text(job.queue),
        text(job.key),
        text(job.last_error),
        text(job.flags)
    )
}

/// Reports that items failed, with the payload as the account of which.
fn partly(call: u64, detail: &str) {
    let (status, message) = (STATUS_PARTLY_FAILED, Str::new("some"));
    let outcome = Outcome { size: size_of::<Outcome<'_>>() as u32, status, message, detail: Str::new(detail) };
    unsafe { (host().finish)(host().context, call, &outcome) };
}

fn twice(call: u64) {
    finish(call, STATUS_OK, "");
    finish(call, STATUS_ERROR, "the second end");
    thread::spawn(move || {
        finish(call, STATUS_ERROR, "the third end");
        for unknown in [call + 1_000_000, u64::MAX, INIT_CALL] {
            finish(unknown, STATUS_ERROR, "nobody knows this call");
            log(unknown, "a line of an unknown call");
        }
    });
}

fn log(call: u64, message: &str) {
    let fields = Str::new(r#"{"n":1}"#);
    unsafe { (host().log)(host().context, call, 3, Str::new("raw::target"), Str::new(message), fields) };
}

unsafe extern "C" fn job_added(request: u64, outcome: &Outcome<'_>) {
    assert!(REQUESTS.lock().unwrap().contains(&request));
    let text = |text: Str<'_>| unsafe { text.text() }.unwrap().unwrap_or("nothing").to_owned();
    finish(request, STATUS_ERROR, &format!("{} {} {}", outcome.status, text(outcome.message), text(outcome.detail)));
}

fn misbehave(task: &str, payload: &str, call: u64) {
    match task {
        "spin" | "spin-limited" => loop {
            std::hint::spin_loop();
        },
        "print" => {
            println!("{payload} to stdout");
            eprintln!("{payload} to stderr");
            finish(call, STATUS_OK, "");
        }
        "segv" => segfault(),
        "abort" => std::process::abort(),
        "exit" => std::process::exit(3),
        "overflow" => drop(std::hint::black_box(overflow(call))),
        "allocate" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 1 << 20]);
            }
        }
        other => finish(call, STATUS_ERROR, &format!("no task {other}")),
    }
}

#[allow(unconditional_recursion, reason = "that is what is wanted")]
fn overflow(depth: u64) -> u64 {
    let page = std::hint::black_box([depth; 512]);
    overflow(page[3] + 1) + page[7]
}

fn segfault() {
    unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) };
}

unsafe extern "C" fn cancel(call: u64, mode: u32) {
    let mut waiting = WAITING.lock().unwrap();
    let calls = waiting.get_or_insert_default();
    match (calls.get(&call), mode) {
        (Some(&"ask"), CANCEL_ASK) => {
            calls.remove(&call);
            finish(call, STATUS_ERROR, "stopped half-way");
        }
        (Some(&"release"), CANCEL_ASK) => {
            calls.remove(&call);
            finish(call, STATUS_OK, "");
        }
        (Some(_), CANCEL_ABORT) => {
            calls.remove(&call);
            finish(call, STATUS_CANCELLED, "aborted");
        }
        _ => {}
    }
}

unsafe extern "C" fn shutdown(_timeout_ms: u64) -> u32 {
    println!("shut down");
    0
}
