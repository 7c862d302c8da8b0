//! What a host finds in the file of a plugin before it runs anything of it.

use abi_stable::library::{LibHeader, ROOT_MODULE_LOADER_NAME};
use taskbay_abi::{ABI_MAJOR, ABI_MINOR, HEADER_SYMBOL, Header, MAGIC, PluginModule_Ref, TaskDef};
use taskbay_plugin::prelude::*;

use crate::fake_host::{FakeHost, task_names};

/// Sends one e-mail.
///
/// The rest of this is for those who read the code.
#[task(
    name = "mail/send:now",
    timeout = "1m 30s",
    max_attempts = 5,
    schedule = "0 4 * * * ?fill=1d {\"full\": true}",
    schedule = "*/5 * * * * ?id=often"
)]
async fn send(_ctx: Context) {}

#[task]
fn r#type() {}

mod inner {
    use taskbay_plugin::prelude::*;

    #[task]
    pub(super) async fn bounce() {}
}

plugin!(send, r#type, inner::bounce);

#[allow(improper_ctypes, reason = "abi_stable vouches for the layout of its own type")]
unsafe extern "C" {
    #[link_name = "TASKBAY_PLUGIN"]
    safe static EXPORTED: Header;
    #[link_name = "_1as_0lib_1header_0root_bmodule_bloader"]
    safe static ROOT_MODULE: LibHeader;
}

#[test]
fn the_header_tells_who_the_plugin_is_and_what_it_offers() {
    assert_eq!(HEADER_SYMBOL, "TASKBAY_PLUGIN");
    let header = &EXPORTED;
    assert_eq!((header.magic, header.abi_major, header.abi_minor), (MAGIC, ABI_MAJOR, ABI_MINOR));
    assert_eq!((header.size as usize, header.flags), (size_of::<Header>(), 0));
    // SAFETY: static text of this test's own plugin.
    let (name, version, profile) = unsafe { (header.name.text(), header.version.text(), header.profile.text()) };
    assert_eq!(name, Ok(Some("taskbay-plugin")));
    assert_eq!(version, Ok(Some(env!("CARGO_PKG_VERSION"))));
    assert_eq!(profile, Ok(Some(if cfg!(debug_assertions) { "debug" } else { "release" })));
    assert_eq!(task_names(header), ["mail/send:now", "type", "bounce"]);

    // SAFETY: static data of this test's own plugin.
    let tasks = unsafe { std::slice::from_raw_parts(header.tasks, header.task_count) };
    assert_eq!((tasks[0].timeout_ms, tasks[0].max_attempts), (90_000, 5));
    assert_eq!((tasks[1].timeout_ms, tasks[1].max_attempts), (0, 0));
    assert!(tasks.iter().all(|task| task.size as usize == size_of::<TaskDef>()));
    // SAFETY: as above.
    let schedules = unsafe { (tasks[0].schedules.text(), tasks[1].schedules.text()) };
    let lines = "0 4 * * * ?fill=1d {\"full\": true}\n*/5 * * * * ?id=often";
    assert_eq!(schedules, (Ok(Some(lines)), Ok(None)));
    // SAFETY: as above.
    let descriptions = unsafe { (tasks[0].description.text(), tasks[1].description.text()) };
    assert_eq!(descriptions, (Ok(Some("Sends one e-mail.")), Ok(None)));
}

#[test]
fn the_root_module_leads_to_the_same_header() {
    assert_eq!(ROOT_MODULE_LOADER_NAME, "_1as_0lib_1header_0root_bmodule_bloader");
    let module = ROOT_MODULE.init_root_module::<PluginModule_Ref>().expect("the layout of this very build");
    assert!(std::ptr::eq(module.header(), &raw const EXPORTED));
    let host = FakeHost::serving(module.header());
    assert_eq!(host.run("type", "{}").message, "");
}
