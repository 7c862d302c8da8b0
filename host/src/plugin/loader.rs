//! The FFI boundary to a plugin's code: maps a sealed image, checks it, and calls its functions.
//!
//! The unsafe code for plugins is in this module and in their callbacks (`host_table.rs`). Libraries stay mapped for the rest
//! of the process; this justifies each `'static` below, and makes late callbacks harmless.

use std::{
    collections::HashSet,
    fmt::Debug,
    os::fd::{IntoRawFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr::addr_of,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use abi_stable::library::{AbiHeaderRef, LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use taskbay_abi::{
    ABI_MAJOR, ABI_MINOR, FLAG_PANIC_ABORT, HEADER_SYMBOL, Header, Job, MAGIC, PluginModule_Ref, Str, TaskDef,
};
use tracing::{debug, trace};

use super::{
    Accepted, JobInput, LaunchError, ManifestInfo, TaskSpec,
    host_table::{PluginHost, host_table, size_of_u32},
    manifest::MAX_TASKS,
};

/// A mapped and checked plugin; none of its functions has been called.
pub(super) struct MappedPlugin {
    header: &'static Header,
    manifest: ManifestInfo,
}

/// A plugin whose start-up has begun.
pub(super) struct LoadedPlugin {
    header: &'static Header,
    task_count: u32,
    /// Set by the shutdown, after which the plugin must not be called.
    ended: RwLock<bool>,
}

impl MappedPlugin {
    /// Maps the file behind `fd`, which runs its constructors, and checks it.
    pub(super) fn map(fd: OwnedFd) -> Result<Self, LaunchError> {
        let library = open(fd)?;
        let published = published_header(&library)?;
        check_interface(published)?;
        // abi_stable may panic on unexpected data, and its constructor is part of the plugin.
        let header = catch_unwind(AssertUnwindSafe(|| checked_header(&library)))
            .unwrap_or_else(|_| Err(LaunchError::Layout("the comparison of the two panicked".to_owned())))?;
        if !std::ptr::eq(header, published) {
            return Err(LaunchError::Header("its two entry symbols name different headers".to_owned()));
        }
        never_seen(header)?;
        let manifest = read_manifest(header)?;
        manifest.validate().map_err(LaunchError::Manifest)?;
        // Dropping the handle would call dlclose.
        std::mem::forget(library);
        Ok(Self { header, manifest })
    }

    pub(super) fn manifest(&self) -> &ManifestInfo {
        &self.manifest
    }

    /// Begins the start-up; `host` receives its end as the end of [`taskbay_abi::INIT_CALL`].
    pub(super) fn init(self, host: Arc<dyn PluginHost>, max_level: u32, settings: &str) -> LoadedPlugin {
        let table = host_table(host, max_level);
        // SAFETY: the header's layout was checked, the table is never freed, `settings` outlives the call, and this is the
        // only call of `init`, because it consumes `self`.
        unsafe { (self.header.vtable.init)(table, Str::new(settings)) };
        let task_count = u32::try_from(self.manifest.tasks.len()).unwrap_or(u32::MAX);
        LoadedPlugin { header: self.header, task_count, ended: RwLock::new(false) }
    }
}

impl LoadedPlugin {
    /// Starts a job; the host receives its end under `call`. Returns `false`, without calling `accepted`, after the shutdown.
    pub(super) fn start(
        &self,
        task: u32,
        job: &JobInput<'_>,
        timeout: Option<Duration>,
        call: u64,
        accepted: Accepted<'_>,
    ) -> bool {
        assert!(task < self.task_count, "a task's index comes from this build's own manifest");
        let job = Job {
            size: size_of_u32::<Job<'_>>(),
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            priority: job.priority,
            revision: job.revision,
            reserved: 0,
            id: job.id,
            run_at_us: job.run_at_us,
            created_at_us: job.created_at_us,
            updated_at_us: job.updated_at_us,
            timeout_ms: timeout.map_or(0, |timeout| millis(timeout).max(1)),
            payload: Str::new(job.payload),
            queue: Str::from_option(job.queue),
            key: Str::from_option(job.key),
            last_error: Str::from_option(job.last_error),
            flags: Str::from_option(job.flags),
        };
        self.unless_ended(|| {
            accepted();
            // SAFETY: the layout was checked, `init` was called, the shutdown has not begun, the index exists, and the
            // values borrowed by `job` outlive the call.
            unsafe { (self.header.vtable.start)(task, &job, call) };
        })
    }

    /// Cancels a running call, by a `CANCEL_*` mode.
    pub(super) fn cancel(&self, call: u64, mode: u32) {
        self.unless_ended(|| {
            // SAFETY: the layout was checked, `init` was called, and the shutdown has not begun.
            unsafe { (self.header.vtable.cancel)(call, mode) };
        });
    }

    /// Ends the plugin, and blocks until its threads have ended; returns `false` after `timeout`.
    pub(super) fn shutdown(&self, timeout: Duration) -> bool {
        let mut ended = self.ended.write().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *ended, true) {
            return true;
        }
        drop(ended);
        // SAFETY: the layout was checked, `init` was called, and the flag makes this the last call of the plugin.
        unsafe { (self.header.vtable.shutdown)(millis(timeout)) == 0 }
    }

    fn unless_ended(&self, call: impl FnOnce()) -> bool {
        let ended = self.ended.read().unwrap_or_else(PoisonError::into_inner);
        if !*ended {
            call();
        }
        !*ended
    }
}

impl Debug for LoadedPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedPlugin").field("task_count", &self.task_count).finish_non_exhaustive()
    }
}

/// Opens the file behind `fd`, and never closes the descriptor: glibc identifies libraries by their path, so a reused number
/// would return the earlier library.
fn open(fd: OwnedFd) -> Result<Library, LaunchError> {
    // The double slash avoids conflicts with other code in this process that opens libraries by descriptor.
    let path = format!("/proc/self/fd//{}", fd.into_raw_fd());
    // SAFETY: this runs the library's constructors, for which there is no guarantee. In an isolated plugin, only the child is
    // at risk; for an in-process plugin, a child has just tried the same bytes.
    unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE) }.map_err(|error| {
        let text = error.to_string();
        LaunchError::Map(text.trim_start_matches(&path).trim_start_matches(": ").to_owned())
    })
}

fn published_header(library: &Library) -> Result<*const Header, LaunchError> {
    let symbol = |name: &str| LaunchError::NoEntry(name.to_owned());
    // SAFETY: only the symbol's address is taken.
    let header =
        unsafe { library.get::<*const Header>(HEADER_SYMBOL.as_bytes()) }.map_err(|_| symbol(HEADER_SYMBOL))?;
    if header.is_null() || !header.is_aligned() {
        return Err(LaunchError::Header("it has no proper address".to_owned()));
    }
    Ok(*header)
}

/// Checks the part of the header that is the same in all versions, before the rest is trusted.
fn check_interface(header: *const Header) -> Result<(), LaunchError> {
    // SAFETY: the symbol is not null, is aligned, and lies in a mapped library; its name promises these fields, and the magic
    // number confirms them.
    let (magic, major, minor, size) = unsafe {
        let magic = addr_of!((*header).magic).read();
        if magic != MAGIC {
            return Err(LaunchError::Header("it does not begin with the mark of one".to_owned()));
        }
        (
            magic,
            addr_of!((*header).abi_major).read(),
            addr_of!((*header).abi_minor).read(),
            addr_of!((*header).size).read(),
        )
    };
    trace!(?magic, major, minor, size, "found a plugin's header");
    if major != ABI_MAJOR {
        return Err(LaunchError::OtherInterface { found: major.to_string(), ours: ABI_MAJOR.to_string() });
    }
    if minor > ABI_MINOR {
        return Err(LaunchError::OtherInterface {
            found: format!("{major}.{minor}"),
            ours: format!("{ABI_MAJOR}.{ABI_MINOR}"),
        });
    }
    Ok(())
}

/// Compares the layout of every type of the interface by abi_stable, and returns the header.
fn checked_header(library: &Library) -> Result<&'static Header, LaunchError> {
    let name = ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes();
    // SAFETY: the symbol is abi_stable's own, its name is specific to this type, and the library is never unmapped.
    let root: AbiHeaderRef = unsafe { library.get::<AbiHeaderRef>(name) }
        .map(|root| *root)
        .map_err(|_| LaunchError::NoEntry(ROOT_MODULE_LOADER_NAME_WITH_NUL.trim_end_matches('\0').to_owned()))?;
    let module = root
        .upgrade()
        .and_then(|root| root.init_root_module::<PluginModule_Ref>())
        .map_err(|error| layout_error(&error))?;
    Ok(module.header())
}

fn layout_error(error: &LibraryError) -> LaunchError {
    let text = error.to_string();
    debug!("the plugin's types differ:\n{text}");
    LaunchError::Layout(match error {
        LibraryError::InvalidAbiHeader(_) => "another version of abi_stable".to_owned(),
        _ => differences(&text),
    })
}

/// Extracts the three relevant lines from abi_stable's hundreds.
fn differences(text: &str) -> String {
    let mut found: Vec<String> = Vec::new();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    while let Some(line) = lines.next() {
        let Some(what) = line.strip_prefix("Error:") else { continue };
        let expected = lines.find(|line| *line == "Expected:").and_then(|_| lines.next()).unwrap_or("?");
        let got = lines.find(|line| *line == "Found:").and_then(|_| lines.next()).unwrap_or("?");
        let difference = format!("{}: expected {expected}, found {got}", what.trim());
        if !found.contains(&difference) {
            found.push(difference);
        }
    }
    found.truncate(3);
    if found.is_empty() { text.split_whitespace().take(30).collect::<Vec<_>>().join(" ") } else { found.join("; ") }
}

/// Refuses a header of an earlier mapping: the system's loader has then returned an old library.
fn never_seen(header: &'static Header) -> Result<(), LaunchError> {
    static SEEN: Mutex<Option<HashSet<usize>>> = Mutex::new(None);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.get_or_insert_default().insert(std::ptr::from_ref(header).addr()) {
        Ok(())
    } else {
        Err(LaunchError::AlreadyMapped)
    }
}

fn read_manifest(header: &'static Header) -> Result<ManifestInfo, LaunchError> {
    if (header.size as usize) < size_of::<Header>() {
        return Err(LaunchError::Header(format!("it has {} bytes instead of {}", header.size, size_of::<Header>())));
    }
    if header.task_count > MAX_TASKS {
        return Err(LaunchError::Header(format!("it counts {} tasks, more than {MAX_TASKS}", header.task_count)));
    }
    Ok(ManifestInfo {
        name: text(header.name, "name")?,
        version: text(header.version, "version")?,
        sdk: text(header.sdk, "sdk")?,
        profile: text(header.profile, "profile")?,
        abi: (header.abi_major, header.abi_minor),
        panic_abort: header.flags & FLAG_PANIC_ABORT != 0,
        tasks: (0..header.task_count).map(|index| read_task(header, index)).collect::<Result<_, _>>()?,
    })
}

fn read_task(header: &'static Header, index: usize) -> Result<TaskSpec, LaunchError> {
    let first = header.tasks;
    if first.is_null() || !first.is_aligned() {
        return Err(LaunchError::Header("its list of tasks has no proper address".to_owned()));
    }
    // SAFETY: the layout was checked, and the header promises `task_count` definitions, the first of which this reads.
    let stride = unsafe { (*first).size } as usize;
    if stride < size_of::<TaskDef>() || !stride.is_multiple_of(align_of::<TaskDef>()) {
        return Err(LaunchError::Header(format!("its task definitions have {stride} bytes")));
    }
    // SAFETY: as above; `index` is below `task_count`, and the stride keeps the alignment.
    let task = unsafe { *first.byte_add(stride * index) };
    Ok(TaskSpec {
        name: text(task.name, "task name")?,
        description: text(task.description, "task description")?,
        timeout: (task.timeout_ms > 0).then(|| Duration::from_millis(task.timeout_ms)),
        max_attempts: (task.max_attempts > 0).then_some(task.max_attempts),
        schedules: lines(&text(task.schedules, "schedules")?),
    })
}

fn text(text: Str<'static>, what: &str) -> Result<String, LaunchError> {
    // SAFETY: it comes from a header whose layout was checked, in a library that is never unmapped.
    let text = unsafe { text.text() }.map_err(|_| LaunchError::Header(format!("its {what} is not UTF-8")))?;
    Ok(text.unwrap_or_default().to_owned())
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_layout_error_only_the_differences_are_kept() {
        let text = "Compared <this>:\n  lots\n1 error(s)inside:\n\nError:incompatible type size\nExpected:\n    48\n\nFound:\n    56\n\
                    Error:too many fields\nExpected:\n    5\nFound:\n    6\nError:too many fields\nExpected:\n    5\nFound:\n    6\n";
        assert_eq!(
            differences(text),
            "incompatible type size: expected 48, found 56; too many fields: expected 5, found 6"
        );
        assert_eq!(differences("\nsomething else\n went wrong"), "something else went wrong");
    }

    #[test]
    fn a_library_that_is_no_plugin_is_refused_by_name() {
        let libz =
            std::fs::File::open("/lib/x86_64-linux-gnu/libc.so.6").or_else(|_| std::fs::File::open("/lib64/libc.so.6"));
        let error = MappedPlugin::map(libz.unwrap().into()).err().unwrap();
        assert_eq!(error, LaunchError::NoEntry(HEADER_SYMBOL.to_owned()));
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_without_the_path() {
        let file = std::fs::File::open("/etc/passwd").unwrap();
        let error = MappedPlugin::map(file.into()).err().unwrap();
        assert_eq!(error, LaunchError::Map("invalid ELF header".to_owned()));
    }
}
