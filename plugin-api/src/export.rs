//! What a plugin exports: its header, and the abi_stable root module that leads to it.

use std::mem::size_of;

use abi_stable::{
    library::{__call_root_module_loader, RootModuleResult},
    prefix_type::PrefixTypeTrait,
};
use taskbay_abi::{
    ABI_MAJOR, ABI_MINOR, FLAG_PANIC_ABORT, Header, Host, MAGIC, PluginModule, PluginModule_Ref, Str, TaskDef, VTable,
};

use crate::dispatch;

/// Describes a task. `timeout_ms` and `max_attempts` are 0 where there is none.
#[doc(hidden)]
pub const fn task_def(name: &'static str, description: &'static str, timeout_ms: u64, max_attempts: u32) -> TaskDef {
    TaskDef {
        size: size_of::<TaskDef>() as u32,
        max_attempts,
        timeout_ms,
        name: Str::new(name),
        description: if description.is_empty() { Str::NONE } else { Str::new(description) },
    }
}

/// The header of a plugin.
#[doc(hidden)]
pub const fn header<const TASKS: usize>(
    name: &'static str,
    version: &'static str,
    tasks: &'static [TaskDef; TASKS],
    init: unsafe extern "C" fn(&'static Host, Str<'_>),
) -> Header {
    Header {
        magic: MAGIC,
        size: size_of::<Header>() as u32,
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        reserved: 0,
        flags: if cfg!(panic = "abort") { FLAG_PANIC_ABORT } else { 0 },
        name: Str::new(name),
        version: Str::new(version),
        sdk: Str::new(concat!("taskbay-plugin ", env!("CARGO_PKG_VERSION"))),
        profile: Str::new(if cfg!(debug_assertions) { "debug" } else { "release" }),
        tasks: tasks.as_ptr(),
        task_count: TASKS,
        vtable: VTable { init, start: dispatch::start, cancel: dispatch::cancel, shutdown: dispatch::shutdown },
    }
}

/// Refuses two tasks of one name while the plugin is compiled.
#[doc(hidden)]
pub const fn check_names(tasks: &[TaskDef]) {
    let mut one = 0;
    while one < tasks.len() {
        let mut other = one + 1;
        while other < tasks.len() {
            assert!(!same(tasks[one].name, tasks[other].name), "two tasks of this plugin have the same name");
            other += 1;
        }
        one += 1;
    }
}

const fn same(one: Str<'static>, other: Str<'static>) -> bool {
    // SAFETY: both were made by `task_def` from static text.
    let (one, other) = unsafe { (one.bytes(), other.bytes()) };
    let (Some(one), Some(other)) = (one, other) else { return false };
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The root module, for abi_stable's layout check.
#[doc(hidden)]
pub fn root_module(header: &'static Header) -> RootModuleResult {
    // The loader wants a function without captures; the header of this library is one per process image.
    static HEADER: std::sync::OnceLock<&'static Header> = std::sync::OnceLock::new();
    HEADER.get_or_init(|| header);
    fn module() -> PluginModule_Ref {
        PluginModule { header: HEADER.get().expect("set just before") }.leak_into_prefix()
    }
    __call_root_module_loader(module)
}
