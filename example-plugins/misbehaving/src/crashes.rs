//! Tasks that end or choke the process they run in.

use std::{hint::black_box, process, ptr};

use taskbay_plugin::prelude::*;

/// Writes to an address that is not mapped.
#[task]
pub(crate) async fn segfault() {
    write_nowhere();
}

pub(crate) fn write_nowhere() {
    // SAFETY: none; this is what the tests of the host want to happen. The first page is never mapped, and the address is
    // not null because the standard library looks out for that one.
    unsafe { ptr::without_provenance_mut::<u8>(64).write_volatile(1) }
}

/// Aborts the process.
#[task]
pub(crate) async fn abort() {
    process::abort();
}

/// Exits the process with status 3.
#[task]
pub(crate) async fn exit() {
    process::exit(3);
}

/// Calls itself until the stack is used up.
#[task]
pub(crate) async fn overflow_stack() {
    black_box(descend(black_box(1)));
}

#[allow(unconditional_recursion, reason = "it is to have no end")]
fn descend(depth: u64) -> u64 {
    let ballast = black_box([depth; 512]);
    descend(depth + 1) + ballast[black_box(7)]
}

#[derive(Deserialize)]
pub(crate) struct Allocate {
    /// Where to give up, for the sake of the machine, if nobody sets a limit.
    #[serde(default = "two_gigabytes")]
    at_most_mb: usize,
}

fn two_gigabytes() -> usize {
    2048
}

/// Allocates and uses memory until somebody stops it, or fails after the payload's `at_most_mb`.
#[task]
pub(crate) fn allocate(allocate: Allocate) -> TaskResult {
    let mut kept = Vec::new();
    while kept.len() < allocate.at_most_mb {
        kept.push(black_box(vec![1_u8; 1 << 20]));
    }
    bail!("got {} MB and nobody minded", kept.len())
}

/// Never gives its thread back.
#[task]
pub(crate) async fn spin() {
    turn();
}

/// Never ends, on the pool for blocking work.
#[task]
pub(crate) fn spin_plain() {
    turn();
}

fn turn() {
    let mut turns = 0_u64;
    while black_box(true) {
        turns = black_box(turns.wrapping_add(1));
    }
}
