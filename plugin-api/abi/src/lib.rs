//! The binary interface between the Taskbay host and its plugins.
//!
//! This crate holds types and constants, and no logic: both sides compile it, and nothing else crosses between them.
//! A task author never uses it directly; `taskbay-plugin` does.
//!
//! # The contract
//!
//! * Everything is `#[repr(C)]`. No Rust type (`Vec`, `Box<dyn …>`, `&str`, futures) crosses, so plugin and host may be
//!   built by different compilers, with different versions or features of serde and tokio, and with other allocators.
//! * Whoever allocates frees. Every [`Str`] is borrowed: valid during the call that it is passed to, and copied by the
//!   receiver if it needs it for longer. Text is UTF-8.
//! * Calls and replies are known to each other by a `u64`, never by a pointer. A completion that comes late, twice, or
//!   for a call that never was finds nothing in the receiver's table and does no harm.
//! * Structs that may grow begin with their `size`. A reader takes no more than the smaller of that and its own size;
//!   new fields come last. In an array, `size` is the stride.
//! * No panic crosses. Both sides catch before the border; where that failed, `extern "C"` aborts.
//!
//! # The life of a plugin
//!
//! 1. The host reads [`Header`]'s first fields out of the file, without running code of the plugin, and refuses another
//!    magic or [`ABI_MAJOR`].
//! 2. It maps the file, asks abi_stable for the root module ([`PluginModule`]), which compares the layout of every type
//!    here, and copies the tasks.
//! 3. [`VTable::init`] begins the start-up and returns; its end is [`Host::finish`] with call [`INIT_CALL`].
//! 4. [`VTable::start`] begins one job and returns; its end is [`Host::finish`] with the job's call. Any number run at
//!    once, and `finish` may come from any thread, also before `start` has returned.
//! 5. [`VTable::shutdown`] ends the plugin: no job runs any more, its state is torn down, its threads are joined.
//!
//! # Versions
//!
//! The crate's version is the version of the interface and moves only with it, because abi_stable makes it part of its
//! check. [`ABI_MAJOR`] follows the crate's major version, [`ABI_MINOR`] its minor version.

#![allow(non_camel_case_types, reason = "abi_stable derives `PluginModule_Ref`")]
#![allow(unreachable_pub, missing_debug_implementations, reason = "code that abi_stable's derive writes")]

use std::{marker::PhantomData, slice, str::Utf8Error};

use abi_stable::{
    StableAbi, declare_root_module_statics, library::RootModule, package_version_strings, sabi_types::VersionStrings,
};

/// Plugins and hosts of different major versions do not work together.
pub const ABI_MAJOR: u32 = 1;
/// A host works with plugins of its own minor version and of older ones.
pub const ABI_MINOR: u32 = 0;
/// The first bytes of every [`Header`].
pub const MAGIC: [u8; 8] = *b"TASKBAY\0";
/// The symbol under which a plugin publishes its [`Header`], readable without loading the file.
pub const HEADER_SYMBOL: &str = "TASKBAY_PLUGIN";
/// The call id of a plugin's start-up. Jobs count from 1.
pub const INIT_CALL: u64 = 0;

/// The plugin was compiled with `panic = "abort"`: a panic of one job would end the process.
pub const FLAG_PANIC_ABORT: u64 = 1;

/// The job succeeded.
pub const STATUS_OK: u32 = 0;
/// The task returned an error; the job is tried again later.
pub const STATUS_ERROR: u32 = 1;
/// The task panicked; the job is tried again later.
pub const STATUS_PANIC: u32 = 2;
/// The job was aborted by [`CANCEL_ABORT`] or by the plugin's shutdown before it could end by itself.
pub const STATUS_CANCELLED: u32 = 3;
/// The task failed and trying again is pointless: the job fails for good. Of a start-up: it is not tried again until the
/// plugin's file or settings change.
pub const STATUS_DISCARD: u32 = 4;
/// The payload is an array, and some of its items failed; the job is tried again later with these alone. The outcome's
/// detail is a JSON object: `items`, how many the task saw, and `failed`, an array of objects with the `index` of an item
/// that failed, from 0 and in ascending order, and, if trying it again is pointless, `"discard": true`.
pub const STATUS_PARTLY_FAILED: u32 = 5;

/// [`VTable::cancel`]: tell the task, which may end as it likes.
pub const CANCEL_ASK: u32 = 0;
/// [`VTable::cancel`]: drop the task's future at its next await point.
pub const CANCEL_ABORT: u32 = 1;

/// Levels for [`Host::log`]; a smaller number is more important.
pub const LEVEL_ERROR: u32 = 1;
/// See [`LEVEL_ERROR`].
pub const LEVEL_WARN: u32 = 2;
/// See [`LEVEL_ERROR`].
pub const LEVEL_INFO: u32 = 3;
/// See [`LEVEL_ERROR`].
pub const LEVEL_DEBUG: u32 = 4;
/// See [`LEVEL_ERROR`].
pub const LEVEL_TRACE: u32 = 5;

/// Borrowed bytes, UTF-8 wherever they are text. A null pointer means "none", which is not the same as empty.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Str<'a> {
    ptr: *const u8,
    len: usize,
    borrow: PhantomData<&'a u8>,
}

// SAFETY: a `Str<'a>` gives read access to bytes borrowed for `'a` and nothing else, as `&'a [u8]` does.
unsafe impl Send for Str<'_> {}
// SAFETY: as above.
unsafe impl Sync for Str<'_> {}

impl<'a> Str<'a> {
    /// The absent text.
    pub const NONE: Str<'static> = Str { ptr: std::ptr::null(), len: 0, borrow: PhantomData };

    /// Borrows text for a call.
    pub const fn new(text: &'a str) -> Self {
        Str { ptr: text.as_ptr(), len: text.len(), borrow: PhantomData }
    }

    /// Borrows text that may be absent.
    pub const fn from_option(text: Option<&'a str>) -> Self {
        match text {
            Some(text) => Self::new(text),
            None => Self { ptr: std::ptr::null(), len: 0, borrow: PhantomData },
        }
    }

    /// The bytes, or `None` for an absent text.
    ///
    /// # Safety
    ///
    /// The other side filled this in: it must hold to the contract that pointer and length describe readable bytes which
    /// stay unchanged for `'a`.
    pub const unsafe fn bytes(self) -> Option<&'a [u8]> {
        if self.ptr.is_null() {
            return None;
        }
        // SAFETY: not null, and the caller vouches for the rest.
        Some(unsafe { slice::from_raw_parts(self.ptr, self.len) })
    }

    /// The text, or `None` for an absent one.
    ///
    /// # Errors
    ///
    /// When the bytes are not UTF-8.
    ///
    /// # Safety
    ///
    /// As for [`Str::bytes`].
    pub unsafe fn text(self) -> Result<Option<&'a str>, Utf8Error> {
        // SAFETY: the caller vouches.
        unsafe { self.bytes() }.map(str::from_utf8).transpose()
    }
}

impl std::fmt::Debug for Str<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Str({} bytes)", self.len)
    }
}

/// What a plugin is and where its functions are. A plugin has one, in a `static` named [`HEADER_SYMBOL`].
///
/// The host reads the fields up to `flags` straight from the file, before it runs anything of it.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// `size_of::<Header>()` as the plugin knows it.
    pub size: u32,
    /// [`ABI_MAJOR`] as the plugin knows it.
    pub abi_major: u32,
    /// [`ABI_MINOR`] as the plugin knows it.
    pub abi_minor: u32,
    /// Zero; keeps `flags` aligned without hidden padding.
    pub reserved: u32,
    /// `FLAG_*` bits.
    pub flags: u64,
    /// The plugin's name: its crate's.
    pub name: Str<'static>,
    /// The plugin's version: its crate's.
    pub version: Str<'static>,
    /// The version of the crate that the plugin was written with, for people.
    pub sdk: Str<'static>,
    /// `debug` or `release`, for people.
    pub profile: Str<'static>,
    /// `task_count` definitions. With a `size` that differs from the host's, that is the stride.
    pub tasks: *const TaskDef,
    /// How many tasks there are.
    pub task_count: usize,
    /// The plugin's functions.
    pub vtable: VTable,
}

// SAFETY: a header is immutable static data; its pointers lead to immutable static data and code.
unsafe impl Sync for Header {}
// SAFETY: as above.
unsafe impl Send for Header {}

/// One task of a plugin.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct TaskDef {
    /// `size_of::<TaskDef>()` as the plugin knows it.
    pub size: u32,
    /// The job fails for good at this attempt even if it was added with more; 0 leaves it to the job.
    pub max_attempts: u32,
    /// The job is cancelled after this many milliseconds; 0 means never.
    pub timeout_ms: u64,
    /// The identifier that jobs name.
    pub name: Str<'static>,
    /// One line for people, from the task's documentation; may be absent.
    pub description: Str<'static>,
    /// When the host adds a job of it by itself: lines as in a crontab, without the task's name; may be absent.
    pub schedules: Str<'static>,
}

// SAFETY: static data, immutable.
unsafe impl Sync for TaskDef {}

/// The functions of a plugin.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct VTable {
    /// Begins the start-up, which ends with [`Host::finish`] for [`INIT_CALL`]; called once, before anything else. `host`
    /// stays valid for the rest of the process. `settings` is a JSON object, from the plugin's section of the host's
    /// settings.
    pub init: unsafe extern "C" fn(host: &'static Host, settings: Str<'_>),
    /// Begins one job. `task` is an index into [`Header::tasks`].
    pub start: unsafe extern "C" fn(task: u32, job: &Job<'_>, call: u64),
    /// Cancels a running job, by a `CANCEL_*` mode. Does nothing if it has ended.
    pub cancel: unsafe extern "C" fn(call: u64, mode: u32),
    /// Ends the plugin: aborts what still runs, tears down its state, joins its threads. Blocks for up to `timeout_ms` and
    /// returns 0 if all threads are gone. Called once; nothing is called after it.
    pub shutdown: unsafe extern "C" fn(timeout_ms: u64) -> u32,
}

/// One job, borrowed during [`VTable::start`]. Times are microseconds since the Unix epoch.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct Job<'a> {
    /// `size_of::<Job>()` as the host knows it.
    pub size: u32,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// How many attempts the job has.
    pub max_attempts: u32,
    /// A smaller number runs earlier.
    pub priority: i32,
    /// How often the job was changed through its key.
    pub revision: i32,
    /// Zero; keeps what follows aligned without hidden padding.
    pub reserved: u32,
    /// The job's id.
    pub id: i64,
    /// When the job was due.
    pub run_at_us: i64,
    /// When the job was added.
    pub created_at_us: i64,
    /// When the job was last changed by somebody else than a worker.
    pub updated_at_us: i64,
    /// Milliseconds until the host cancels the job; 0 means never.
    pub timeout_ms: u64,
    /// The payload: one JSON value, byte for byte as Postgres keeps it.
    pub payload: Str<'a>,
    /// The name of the job's queue, if it has one.
    pub queue: Str<'a>,
    /// The job's key, if it has one.
    pub key: Str<'a>,
    /// Why the previous attempt failed, if there was one.
    pub last_error: Str<'a>,
    /// The job's flags as a JSON object, if it has some.
    pub flags: Str<'a>,
}

/// How a call ended, borrowed during the function that delivers it.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// `size_of::<Outcome>()` as the sender knows it.
    pub size: u32,
    /// A `STATUS_*` value.
    pub status: u32,
    /// What went wrong, for people; absent on success.
    pub message: Str<'a>,
    /// More about it as JSON, where the call defines some; else absent.
    pub detail: Str<'a>,
}

/// The host's functions. All may be called from any thread at any time, also after the plugin's shutdown.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct Host {
    /// `size_of::<Host>()` as the host knows it.
    pub size: u32,
    /// The least important level that anybody listens to, as of the start-up; below it, [`Host::log`] need not be called.
    pub max_level: u32,
    /// The host's; handed back to each function.
    pub context: *const HostContext,
    /// Reports how a call ended. The first report of a call counts.
    pub finish: unsafe extern "C" fn(context: *const HostContext, call: u64, outcome: &Outcome<'_>),
    /// Writes to the host's log. `call` tells which job it belongs to ([`INIT_CALL`]: none); `fields` is a JSON object or
    /// absent.
    pub log: unsafe extern "C" fn(
        context: *const HostContext,
        call: u64,
        level: u32,
        target: Str<'_>,
        message: Str<'_>,
        fields: Str<'_>,
    ),
    /// Adds a job, or several: either all or none of them. `spec` is the JSON object described at [`ADD_JOB_SPEC`], or an
    /// array of such objects. `reply` is called once, from any thread, also before this returns; the outcome's `detail` is
    /// the new job's id or, for an array, the array of the ids in its order.
    pub add_job: unsafe extern "C" fn(context: *const HostContext, call: u64, spec: Str<'_>, reply: Reply),
}

/// The fields of the JSON object that [`Host::add_job`] takes: `identifier` (string) and, each optional, `payload` (any
/// value), `queue_name` (string), `run_at` (microseconds since the Unix epoch), `max_attempts` (integer), `job_key`
/// (string), `job_key_mode` (`replace`, `preserve_run_at` or `unsafe_dedupe`), `priority` (integer), `flags` (array of
/// strings).
pub const ADD_JOB_SPEC: [&str; 9] =
    ["identifier", "payload", "queue_name", "run_at", "max_attempts", "job_key", "job_key_mode", "priority", "flags"];

// SAFETY: function pointers, and a context that the host allows on any thread.
unsafe impl Sync for Host {}
// SAFETY: as above.
unsafe impl Send for Host {}

/// The host's side of [`Host::context`]; plugins never look inside.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct HostContext {
    private: [u8; 0],
}

/// Where the host answers a request of a plugin.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct Reply {
    /// The plugin's name for the request.
    pub request: u64,
    /// Delivers the answer. A second answer to one request finds nothing.
    pub deliver: unsafe extern "C" fn(request: u64, outcome: &Outcome<'_>),
}

/// The abi_stable root module of a Rust plugin: the way by which the layout of all the types here is compared.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModule_Ref)))]
#[sabi(missing_field(panic))]
pub struct PluginModule {
    /// The same header that [`HEADER_SYMBOL`] names.
    #[sabi(last_prefix_field)]
    pub header: &'static Header,
}

impl RootModule for PluginModule_Ref {
    declare_root_module_statics! {PluginModule_Ref}
    const BASE_NAME: &'static str = "taskbay_plugin";
    const NAME: &'static str = "taskbay_plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
