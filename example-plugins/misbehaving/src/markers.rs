//! Bytes in the file that a test patches in a copy, to get another build or another behaviour without a compiler.

use std::{process, ptr, thread, time::Duration};

use taskbay_plugin::prelude::*;

use crate::Settings;

/// The ten characters after the colon are the build's label, which `echo` reports.
#[used]
static BUILD_LABEL: [u8; 24] = *b"taskbay-label:0000000000";

/// The eleven characters after the colon are what the file does as a whole, padded with `-`: `normal`, `load-crash`,
/// `load-exit`, `load-hang`, `start-fail`, `start-panic`, `start-crash`, `start-hang`, `echo-crash`, `stop-hang` or
/// `stop-crash`.
#[used]
static BEHAVIOUR: [u8; 24] = *b"taskbay-mode:normal-----";

/// Read in a way that keeps the compiler from putting in what it sees in this source.
fn read(marker: &'static [u8; 24]) -> String {
    // SAFETY: a reference to a static.
    let bytes = unsafe { ptr::read_volatile(marker) };
    let text = String::from_utf8_lossy(&bytes);
    text.split_once(':').map_or_else(String::new, |(_, value)| value.trim_end_matches('-').to_owned())
}

pub(crate) fn label() -> String {
    read(&BUILD_LABEL)
}

/// The dynamic linker calls this while it loads the file, before anybody can ask what the file is.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = at_load;

extern "C" fn at_load() {
    match &*read(&BEHAVIOUR) {
        "load-crash" => crate::crashes::write_nowhere(),
        "load-exit" => process::exit(3),
        "load-hang" => hang(),
        _ => {}
    }
}

pub(crate) fn start(setup: &Setup) -> Result<Settings, TaskError> {
    match &*read(&BEHAVIOUR) {
        "start-fail" => bail!("the start failed as asked"),
        "start-panic" => panic!("the start panicked as asked"),
        "start-crash" => crate::crashes::write_nowhere(),
        "start-hang" => hang(),
        _ => {}
    }
    let settings: Settings = setup.settings()?;
    match &settings.needs {
        Some(file) if !file.exists() => bail!("cannot reach {}", file.display()),
        _ => Ok(settings),
    }
}

/// Whether each `echo` takes its process down.
pub(crate) fn crashes() -> bool {
    read(&BEHAVIOUR) == "echo-crash"
}

pub(crate) fn stop(_: &Settings) {
    match &*read(&BEHAVIOUR) {
        "stop-hang" => hang(),
        "stop-crash" => crate::crashes::write_nowhere(),
        _ => {}
    }
}

fn hang() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
