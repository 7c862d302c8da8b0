//! A host in Rust that drives a plugin through its real header, and keeps all that the plugin tells it.

use std::{
    collections::HashMap,
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use taskbay_abi::{Header, Host, HostContext, INIT_CALL, Job, LEVEL_TRACE, Outcome, Reply, STATUS_OK, Str};

/// Every wait in these tests ends after this time at the latest.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct FakeHost {
    plugin: &'static Header,
    heard: Mutex<Heard>,
    changed: Condvar,
    next_call: AtomicU64,
}

#[derive(Default)]
struct Heard {
    ended: HashMap<u64, Vec<Ended>>,
    lines: Vec<Line>,
    requests: Vec<(String, Reply)>,
    add_job: Option<fn(&str, Reply)>,
}

/// A report of `finish`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: u32,
    pub(crate) message: String,
    pub(crate) detail: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) call: u64,
    pub(crate) level: u32,
    pub(crate) target: String,
    pub(crate) message: String,
    pub(crate) fields: Value,
}

impl FakeHost {
    /// Starts a plugin with these settings. A plugin lives for the rest of the process, and so does its host.
    pub(crate) fn init(plugin: &'static Header, settings: &str) -> &'static FakeHost {
        let this: &'static FakeHost = Box::leak(Box::new(FakeHost {
            plugin,
            heard: Mutex::default(),
            changed: Condvar::new(),
            next_call: AtomicU64::new(1),
        }));
        let host: &'static Host = Box::leak(Box::new(Host {
            size: size_of::<Host>() as u32,
            max_level: LEVEL_TRACE,
            context: std::ptr::from_ref(this).cast(),
            finish,
            log,
            add_job,
        }));
        // SAFETY: called once for this plugin, before everything else.
        unsafe { (plugin.vtable.init)(host, Str::new(settings)) };
        this
    }

    /// Starts a plugin whose start-up must succeed.
    pub(crate) fn serving(plugin: &'static Header) -> &'static FakeHost {
        let host = Self::init(plugin, "{}");
        assert_eq!(host.outcome(INIT_CALL), Ended { status: STATUS_OK, message: String::new(), detail: String::new() });
        host
    }

    /// Begins a job of the task with this name and returns the call.
    pub(crate) fn begin(&self, task: &str, payload: &str) -> u64 {
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        self.begin_as(call, self.index(task), &job(payload));
        call
    }

    pub(crate) fn begin_as(&self, call: u64, task: u32, job: &Job<'_>) {
        // SAFETY: the plugin was started, and the job lives until this returns.
        unsafe { (self.plugin.vtable.start)(task, job, call) }
    }

    /// Runs a job to its end.
    pub(crate) fn run(&self, task: &str, payload: &str) -> Ended {
        self.outcome(self.begin(task, payload))
    }

    pub(crate) fn cancel(&self, call: u64, mode: u32) {
        // SAFETY: the plugin was started.
        unsafe { (self.plugin.vtable.cancel)(call, mode) }
    }

    pub(crate) fn shutdown(&self, timeout: Duration) -> u32 {
        // SAFETY: the plugin was started; the tests start nothing after this but to see it refused.
        unsafe { (self.plugin.vtable.shutdown)(timeout.as_millis() as u64) }
    }

    /// What a request to add a job is answered with, from inside the request; without one it stays open.
    pub(crate) fn answer_at_once(&self, answer: fn(&str, Reply)) {
        self.heard().add_job = Some(answer);
    }

    /// Waits for the end of a call.
    #[track_caller]
    pub(crate) fn outcome(&self, call: u64) -> Ended {
        self.wait(|heard| heard.ended.get(&call).map(|ended| ended[0].clone()))
    }

    /// How often the end of a call was reported so far.
    pub(crate) fn reports(&self, call: u64) -> usize {
        self.heard().ended.get(&call).map_or(0, Vec::len)
    }

    /// Waits for a line with this message.
    #[track_caller]
    pub(crate) fn line(&self, message: &str) -> Line {
        self.wait(|heard| heard.lines.iter().find(|line| line.message.contains(message)).cloned())
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.heard().lines.clone()
    }

    /// Waits for a request to add a job and takes it.
    #[track_caller]
    pub(crate) fn request(&self) -> (Value, Reply) {
        let (spec, reply) = self.wait(|heard| heard.requests.pop());
        (serde_json::from_str(&spec).unwrap(), reply)
    }

    /// How many requests to add jobs came that were not taken.
    pub(crate) fn requests(&self) -> usize {
        self.heard().requests.len()
    }

    #[track_caller]
    fn wait<T>(&self, mut find: impl FnMut(&mut Heard) -> Option<T>) -> T {
        let until = Instant::now() + DEADLINE;
        let mut heard = self.heard();
        loop {
            if let Some(found) = find(&mut heard) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "did not come in time; so far: {:?}, {:?}", heard.ended, heard.lines);
            heard = self.changed.wait_timeout(heard, left).unwrap().0;
        }
    }

    fn index(&self, task: &str) -> u32 {
        let names = task_names(self.plugin);
        names.iter().position(|name| *name == task).unwrap_or_else(|| panic!("no task {task} in {names:?}")) as u32
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap()
    }

    fn hear(context: *const HostContext, change: impl FnOnce(&mut Heard)) {
        // SAFETY: `init` made the context from a leaked `FakeHost`.
        let this = unsafe { &*context.cast::<FakeHost>() };
        change(&mut this.heard());
        this.changed.notify_all();
    }
}

pub(crate) fn task_names(plugin: &'static Header) -> Vec<&'static str> {
    // SAFETY: a header's tasks are static data.
    let tasks = unsafe { std::slice::from_raw_parts(plugin.tasks, plugin.task_count) };
    // SAFETY: as above.
    tasks.iter().map(|task| unsafe { task.name.text() }.unwrap().unwrap()).collect()
}

pub(crate) fn job(payload: &str) -> Job<'_> {
    Job {
        size: size_of::<Job<'_>>() as u32,
        attempt: 2,
        max_attempts: 5,
        priority: -3,
        revision: 7,
        reserved: 0,
        id: 42,
        run_at_us: 1_700_000_000_000_001,
        created_at_us: 1_600_000_000_000_002,
        updated_at_us: 1_600_000_000_000_003,
        timeout_ms: 60_000,
        payload: Str::new(payload),
        queue: Str::new("mail"),
        key: Str::NONE,
        last_error: Str::new("timed out"),
        flags: Str::new(r#"{"slow": true, "big": true}"#),
    }
}

/// Answers a request.
pub(crate) fn deliver(reply: Reply, status: u32, message: Option<&str>, detail: Option<&str>) {
    let (message, detail) = (Str::from_option(message), Str::from_option(detail));
    let outcome = Outcome { size: size_of::<Outcome<'_>>() as u32, status, message, detail };
    // SAFETY: the outcome lives until this returns.
    unsafe { (reply.deliver)(reply.request, &outcome) }
}

unsafe extern "C" fn finish(context: *const HostContext, call: u64, outcome: &Outcome<'_>) {
    // SAFETY: the plugin lends the outcome for this call.
    let (message, detail) = unsafe { (outcome.message.text(), outcome.detail.text()) };
    let text = |text: Result<Option<&str>, _>| text.unwrap().unwrap_or_default().to_owned();
    let ended = Ended { status: outcome.status, message: text(message), detail: text(detail) };
    FakeHost::hear(context, |heard| heard.ended.entry(call).or_default().push(ended));
}

unsafe extern "C" fn log(
    context: *const HostContext,
    call: u64,
    level: u32,
    target: Str<'_>,
    message: Str<'_>,
    fields: Str<'_>,
) {
    // SAFETY: the plugin lends the texts for this call.
    let (target, message, fields) = unsafe { (target.text(), message.text(), fields.text()) };
    let fields = fields.unwrap().map_or(Value::Null, |fields| serde_json::from_str(fields).unwrap());
    let (target, message) = (target.unwrap().unwrap().to_owned(), message.unwrap().unwrap().to_owned());
    if target == "panic" && call == INIT_CALL {
        // The plugin's hook has replaced that of the tests, whose failed assertions come here as well.
        eprintln!("{message}");
    }
    FakeHost::hear(context, |heard| heard.lines.push(Line { call, level, target, message, fields }));
}

unsafe extern "C" fn add_job(context: *const HostContext, _call: u64, spec: Str<'_>, reply: Reply) {
    // SAFETY: the plugin lends the text for this call.
    let spec = unsafe { spec.text() }.unwrap().unwrap().to_owned();
    let mut at_once = None;
    FakeHost::hear(context, |heard| {
        at_once = heard.add_job;
        heard.requests.push((spec.clone(), reply));
    });
    if let Some(answer) = at_once {
        answer(&spec, reply);
    }
}
