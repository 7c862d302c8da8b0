//! The host's functions for plugins, which may call them on any thread and at any time, even late, twice, or for unknown
//! calls.

use std::{
    borrow::Cow,
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use taskbay_abi::{Host, HostContext, Outcome, Reply, STATUS_ERROR, STATUS_OK, Str};
use tracing::error;

/// The implementation of the functions: the in-process runner, or the child's side of an isolated one.
pub(super) trait PluginHost: Debug + Send + Sync + 'static {
    /// A call has ended.
    fn finished(&self, call: u64, end: End<'_>);
    /// A line for the log.
    fn log(&self, call: u64, line: LogLine<'_>);
    /// A job, or an array of jobs, to be added.
    fn add_job(&self, call: u64, spec: &str, reply: AddJobReply);
}

/// The end of a call, with a `STATUS_*` value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End<'a> {
    pub(super) status: u32,
    pub(super) message: Option<&'a str>,
    /// Details as JSON, if the status defines any.
    pub(super) detail: Option<&'a str>,
}

/// A line for the log, at a `LEVEL_*` value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogLine<'a> {
    pub(super) level: u32,
    pub(super) target: &'a str,
    pub(super) message: &'a str,
    /// A JSON object.
    pub(super) fields: Option<&'a str>,
}

/// The recipient of the answer to a request for a job. Dropping it sends an error as the answer.
pub(super) struct AddJobReply(Option<Reply>);

impl AddJobReply {
    /// Sends the new job's id or the array of ids, or the reason for the failure.
    pub(super) fn deliver(mut self, result: Result<&str, &str>) {
        self.send(result);
    }

    fn send(&mut self, result: Result<&str, &str>) {
        let Some(reply) = self.0.take() else { return };
        let (status, message, detail) = match result {
            Ok(id) => (STATUS_OK, Str::NONE, Str::new(id)),
            Err(reason) => (STATUS_ERROR, Str::new(reason), Str::NONE),
        };
        let outcome = Outcome { size: size_of_u32::<Outcome<'_>>(), status, message, detail };
        // SAFETY: the plugin passed the function for this request, its library is never unmapped, and the outcome's borrowed
        // values outlive the call. It is called only once, because it was taken out.
        unsafe { (reply.deliver)(reply.request, &outcome) };
    }
}

impl Drop for AddJobReply {
    fn drop(&mut self) {
        self.send(Err("the host did not get to store the job"));
    }
}

impl Debug for AddJobReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AddJobReply")
    }
}

/// Longer messages are truncated to this length.
const MAX_READABLE: usize = 1 << 20;
/// A longer detail is dropped. The detail of a payload with a million failed items has 16 MB.
const MAX_DETAIL: usize = 32 << 20;

struct Context {
    host: Arc<dyn PluginHost>,
}

/// Creates the table for a plugin. It is never freed, because the plugin may call its functions at any time.
pub(super) fn host_table(host: Arc<dyn PluginHost>, max_level: u32) -> &'static Host {
    let context: &'static Context = Box::leak(Box::new(Context { host }));
    Box::leak(Box::new(Host {
        size: size_of_u32::<Host>(),
        max_level,
        context: std::ptr::from_ref(context).cast(),
        finish,
        log,
        add_job,
    }))
}

unsafe extern "C" fn finish(context: *const HostContext, call: u64, outcome: &Outcome<'_>) {
    guarded(context, |host| {
        if (outcome.size as usize) < size_of::<Outcome<'_>>() {
            let message = Some("the plugin reported an outcome that is too short to be one");
            return host.finished(call, End { status: STATUS_ERROR, message, detail: None });
        }
        let message = readable(outcome.message);
        // Unlike a message, a truncated detail is useless.
        let detail = lossy(outcome.detail).filter(|detail| detail.len() <= MAX_DETAIL);
        host.finished(call, End { status: outcome.status, message: message.as_deref(), detail: detail.as_deref() });
    });
}

unsafe extern "C" fn log(
    context: *const HostContext,
    call: u64,
    level: u32,
    target: Str<'_>,
    message: Str<'_>,
    fields: Str<'_>,
) {
    guarded(context, |host| {
        let (target, message, fields) = (readable(target), readable(message), readable(fields));
        let line = LogLine {
            level,
            target: target.as_deref().unwrap_or_default(),
            message: message.as_deref().unwrap_or_default(),
            fields: fields.as_deref(),
        };
        host.log(call, line);
    });
}

unsafe extern "C" fn add_job(context: *const HostContext, call: u64, spec: Str<'_>, reply: Reply) {
    let reply = AddJobReply(Some(reply));
    guarded(context, |host| host.add_job(call, &lossy(spec).unwrap_or_default(), reply));
}

/// Keeps the host's panics from crossing into the plugin.
fn guarded(context: *const HostContext, work: impl FnOnce(&dyn PluginHost)) {
    // SAFETY: plugins get this pointer from `host_table`, which leaks the target, and pass it back unchanged.
    let context = unsafe { &*context.cast::<Context>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&*context.host))) {
        error!("a call of a plugin into the host panicked, which is a bug in taskbay; the call was ignored");
        // Dropping the panic's value could panic again.
        std::mem::forget(panic);
    }
}

/// A plugin's text, which may violate the contract and not be UTF-8.
fn lossy(text: Str<'_>) -> Option<Cow<'_, str>> {
    // SAFETY: by the contract, a plugin's text points to readable bytes for the duration of this call.
    unsafe { text.bytes() }.map(String::from_utf8_lossy)
}

/// A text for display, truncated.
fn readable(text: Str<'_>) -> Option<Cow<'_, str>> {
    // SAFETY: as above.
    let bytes = unsafe { text.bytes() }?;
    Some(String::from_utf8_lossy(bytes.get(..MAX_READABLE).unwrap_or(bytes)))
}

/// The size of a type, as the interface states it.
pub(super) const fn size_of_u32<T>() -> u32 {
    size_of::<T>() as u32
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl PluginHost for Recorder {
        fn finished(&self, call: u64, end: End<'_>) {
            self.0.lock().unwrap().push(format!("{call} {} {:?}", end.status, end.message));
            assert_ne!(call, 13, "the panic that the test wants");
        }
        fn log(&self, call: u64, line: LogLine<'_>) {
            self.0.lock().unwrap().push(format!("{call} {} {} {:?}", line.target, line.message, line.fields));
        }
        fn add_job(&self, _: u64, _: &str, _: AddJobReply) {}
    }

    static ANSWERS: Mutex<Vec<(u64, u32)>> = Mutex::new(Vec::new());

    unsafe extern "C" fn deliver(request: u64, outcome: &Outcome<'_>) {
        ANSWERS.lock().unwrap().push((request, outcome.status));
    }

    #[test]
    fn calls_arrive_and_panics_do_not_get_through() {
        let recorder = Arc::new(Recorder::default());
        let table = host_table(Arc::clone(&recorder) as _, 3);
        let mut outcome =
            Outcome { size: size_of_u32::<Outcome<'_>>(), status: 1, message: Str::new("no"), detail: Str::NONE };
        // SAFETY: the table's own functions get the table's own context, and texts that live long enough.
        unsafe {
            (table.finish)(table.context, 7, &outcome);
            (table.finish)(table.context, 13, &outcome);
            outcome.size = 4;
            (table.finish)(table.context, 8, &outcome);
            (table.log)(table.context, 7, 3, Str::new("t"), Str::new("a"), Str::NONE);
            (table.add_job)(table.context, 7, Str::NONE, Reply { request: 5, deliver });
        }
        let seen = recorder.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        assert_eq!(seen[0], "7 1 Some(\"no\")");
        assert!(seen[2].contains("too short"), "{seen:?}");
        assert_eq!(seen[3], "7 t a None");
        assert_eq!(*ANSWERS.lock().unwrap(), [(5, STATUS_ERROR)], "a request that is dropped is answered");
    }
}
