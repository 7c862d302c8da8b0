//! A plugin whose constructor, run by the loader before any of its functions is called, crashes, exits or hangs: which of
//! them, the tests write into a copy of the compiled file. Only the tests use it.

use std::hint::black_box;

use taskbay_plugin::prelude::*;

/// The last digit chooses: 1 crashes, 2 exits, 3 hangs, others do nothing.
#[used]
static LABEL: [u8; 24] = *b"taskbay-label:0000000000";

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

extern "C" fn construct() {
    match black_box(&LABEL)[23] {
        // SAFETY: none; that is the point.
        b'1' => unsafe { black_box(std::ptr::null_mut::<u8>()).write_volatile(1) },
        b'2' => std::process::exit(3),
        b'3' => loop {
            std::thread::sleep(std::time::Duration::from_secs(60));
        },
        _ => {}
    }
}

/// Does nothing.
#[task]
async fn harmless() {}

plugin!(harmless);
