//! The binary interface: the plugin's functions as the host calls them, and the host's as the plugin calls them.
//!
//! All `unsafe` of this crate is here. Each side trusts the other to hold to the contract of `taskbay_abi`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use abi_stable::{
    library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult},
    prefix_type::PrefixTypeTrait,
};
use taskbay_abi::{
    ABI_MAJOR, ABI_MINOR, CANCEL_ABORT, Header, Host, INIT_CALL, MAGIC, Outcome, PluginModule, PluginModule_Ref, Reply,
    STATUS_CANCELLED, STATUS_DISCARD, STATUS_ERROR, STATUS_OK, STATUS_PANIC, STATUS_PARTLY_FAILED, Str, TaskDef,
    VTable,
};

use crate::{
    TaskError,
    dispatcher::Dispatcher,
    error::FailedItems,
    host_link::{Ended, HostLink, Line},
    job::{Job, Stop},
    new_job::Answer,
};

/// A plugin as `plugin!` makes it.
pub trait Exported: 'static {
    fn dispatcher() -> &'static Dispatcher;
    fn header() -> &'static Header;
}

/// What the plugin's exported static says.
pub const fn header<P: Exported>(
    name: &'static str,
    version: &'static str,
    debug: bool,
    tasks: &'static [TaskDef],
) -> Header {
    Header {
        magic: MAGIC,
        size: size_of::<Header>() as u32,
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        reserved: 0,
        flags: if cfg!(panic = "abort") { taskbay_abi::FLAG_PANIC_ABORT } else { 0 },
        name: Str::new(name),
        version: Str::new(version),
        sdk: Str::new(env!("CARGO_PKG_VERSION")),
        profile: Str::new(if debug { "debug" } else { "release" }),
        tasks: tasks.as_ptr(),
        task_count: tasks.len(),
        vtable: VTable { init: init::<P>, start: start::<P>, cancel: cancel::<P>, shutdown: shutdown::<P> },
    }
}

/// The plugin's abi_stable root module, by which the host compares the layout of all types that cross.
pub const fn root_module<P: Exported>() -> LibHeader {
    // SAFETY: `module::<P>` makes a `PluginModule_Ref`, the type named here.
    unsafe { LibHeader::from_constructor::<PluginModule_Ref>(module::<P>, CheckTypeLayout::Yes) }
}

extern "C" fn module<P: Exported>() -> RootModuleResult {
    __call_root_module_loader(|| PluginModule { header: P::header() }.leak_into_prefix())
}

unsafe extern "C" fn init<P: Exported>(host: &'static Host, settings: Str<'_>) {
    let link: Arc<dyn HostLink> = Arc::new(HostHandle(host));
    let fail = |reason: &str| link.finish(INIT_CALL, &Ended::Failed(TaskError::new(reason)));
    let begun = contain(|| {
        if (host.size as usize) < size_of::<Host>() {
            return fail("the host is older than this plugin: build the plugin against an older SDK");
        }
        // SAFETY: the host lends its settings for this call.
        match unsafe { text(settings) } {
            Ok(settings) => P::dispatcher().init(&link, settings.unwrap_or_else(|| "{}".to_owned())),
            Err(error) => fail(&error),
        }
    });
    if let Err(message) = begun {
        link.finish(INIT_CALL, &Ended::Panicked(message));
    }
}

unsafe extern "C" fn start<P: Exported>(task: u32, job: &taskbay_abi::Job<'_>, number: u64) {
    let begun = contain(|| {
        // SAFETY: the host lends the job for this call.
        let job = unsafe { copy(job) }.map_err(TaskError::new);
        job.and_then(|job| P::dispatcher().start(task, job, number))
    });
    let ended = match begun {
        Ok(Ok(())) => return,
        Ok(Err(error)) => Ended::Failed(error),
        Err(message) => Ended::Panicked(message),
    };
    if let Some(link) = P::dispatcher().link() {
        link.finish(number, &ended);
    }
}

unsafe extern "C" fn cancel<P: Exported>(number: u64, mode: u32) {
    let stop = if mode == CANCEL_ABORT { Stop::Aborted("the host ended the job") } else { Stop::Asked };
    let _ = contain(|| P::dispatcher().cancel(number, stop));
}

unsafe extern "C" fn shutdown<P: Exported>(timeout_ms: u64) -> u32 {
    match contain(|| P::dispatcher().shutdown(Duration::from_millis(timeout_ms))) {
        Ok(true) => 0,
        Ok(false) | Err(_) => 1,
    }
}

/// A request's answer comes here, from any thread of the host.
unsafe extern "C" fn deliver(request: u64, outcome: &Outcome<'_>) {
    let _ = contain(|| {
        // SAFETY: the host lends the outcome for this call.
        let (message, detail) = unsafe { (text(outcome.message), text(outcome.detail)) };
        let added = if outcome.status == STATUS_OK {
            detail.ok().flatten().ok_or_else(|| "the host did not tell the id of the new job".to_owned())
        } else {
            Err(message.ok().flatten().unwrap_or_else(|| "the host gave no reason".to_owned()))
        };
        Answer(request).deliver(added);
    });
}

/// No panic crosses the border.
fn contain<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| crate::panics::take(&*payload))
}

/// # Safety
///
/// The host must have filled the text in for the time of this call.
unsafe fn text(text: Str<'_>) -> Result<Option<String>, String> {
    // SAFETY: the caller vouches.
    let text = unsafe { text.text() }.map_err(|error| format!("the host sent text that is not UTF-8: {error}"))?;
    Ok(text.map(str::to_owned))
}

/// # Safety
///
/// As for [`text`].
unsafe fn copy(job: &taskbay_abi::Job<'_>) -> Result<Job, String> {
    if (job.size as usize) < size_of::<taskbay_abi::Job<'_>>() {
        return Err("the host is older than this plugin: build the plugin against an older SDK".to_owned());
    }
    // SAFETY: the caller vouches.
    unsafe {
        Ok(Job {
            id: job.id,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            priority: job.priority,
            revision: job.revision,
            run_at_us: job.run_at_us,
            created_at_us: job.created_at_us,
            updated_at_us: job.updated_at_us,
            timeout_ms: job.timeout_ms,
            payload: text(job.payload)?.unwrap_or_else(|| "null".to_owned()),
            queue: text(job.queue)?,
            key: text(job.key)?,
            last_error: text(job.last_error)?,
            flags: text(job.flags)?,
        })
    }
}

/// The detail of `STATUS_PARTLY_FAILED`.
fn as_json(items: &FailedItems) -> String {
    let failed = items.failed.iter().map(|(index, discard)| {
        if *discard { format!(r#"{{"index":{index},"discard":true}}"#) } else { format!(r#"{{"index":{index}}}"#) }
    });
    format!(r#"{{"items":{},"failed":[{}]}}"#, items.items, failed.collect::<Vec<_>>().join(","))
}

/// The real host. It outlives the plugin, and allows its functions on any thread.
#[derive(Debug)]
struct HostHandle(&'static Host);

impl HostLink for HostHandle {
    fn finish(&self, call: u64, ended: &Ended) {
        let items = match ended {
            Ended::Failed(error) => error.failed_items().map(as_json),
            _ => None,
        };
        let (status, message) = match ended {
            Ended::Done => (STATUS_OK, None),
            Ended::Failed(error) if items.is_some() => (STATUS_PARTLY_FAILED, Some(error.to_string())),
            Ended::Failed(error) if error.is_discard() => (STATUS_DISCARD, Some(error.to_string())),
            Ended::Failed(error) => (STATUS_ERROR, Some(error.to_string())),
            Ended::Panicked(message) => (STATUS_PANIC, Some(message.clone())),
            Ended::Cancelled(reason) => (STATUS_CANCELLED, Some((*reason).to_owned())),
        };
        let message = Str::from_option(message.as_deref());
        let detail = Str::from_option(items.as_deref());
        let outcome = Outcome { size: size_of::<Outcome<'_>>() as u32, status, message, detail };
        // SAFETY: the host's function with the host's context; what it borrows lives until it returns.
        unsafe { (self.0.finish)(self.0.context, call, &outcome) }
    }

    fn log(&self, call: u64, line: &Line<'_>) {
        if line.level > self.0.max_level {
            return;
        }
        let (target, message) = (Str::new(line.target), Str::new(line.message));
        // SAFETY: as in `finish`.
        unsafe { (self.0.log)(self.0.context, call, line.level, target, message, Str::from_option(line.fields)) }
    }

    fn add_job(&self, call: u64, spec: &str, answer: Answer) {
        let reply = Reply { request: answer.0, deliver };
        // SAFETY: as in `finish`; `deliver` may be called from any thread, any number of times.
        unsafe { (self.0.add_job)(self.0.context, call, Str::new(spec), reply) }
    }

    fn max_level(&self) -> u32 {
        self.0.max_level
    }
}
