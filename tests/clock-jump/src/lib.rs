//! A wall clock that a test sets, for any program that is started with this library in `LD_PRELOAD`: the first eight bytes of the
//! file that `CLOCK_JUMP_FILE` names are microseconds that are added to what the machine's clock says. Clocks that only go forward
//! stay as they are, as they do when an administrator sets the clock.

#![allow(unsafe_code, reason = "it stands in for functions of the C library")]

use std::{
    ptr,
    sync::atomic::{AtomicI64, AtomicPtr, Ordering},
};

use libc::{c_int, c_long, c_void, clockid_t, time_t, timespec, timeval};

const MICROS: i64 = 1_000_000;

/// Where there is no file.
static NO_OFFSET: AtomicI64 = AtomicI64::new(0);
/// Null: nobody has looked yet.
static OFFSET: AtomicPtr<AtomicI64> = AtomicPtr::new(ptr::null_mut());

/// Several threads may look at once; the mappings of all but one are left over.
fn offset() -> i64 {
    let mut offset = OFFSET.load(Ordering::Acquire);
    if offset.is_null() {
        offset = mapped().unwrap_or((&raw const NO_OFFSET).cast_mut());
        OFFSET.store(offset, Ordering::Release);
    }
    // SAFETY: it is a static, or a mapping that is never undone, of a page at whose beginning eight bytes of the file are.
    unsafe { (*offset).load(Ordering::Relaxed) }
}

/// Allocates nothing and asks for no time, since an allocator may be what asks.
fn mapped() -> Option<*mut AtomicI64> {
    // SAFETY: plain calls of the C library, with strings that end with a zero. The file stays as long as its readers.
    unsafe {
        let name = libc::getenv(c"CLOCK_JUMP_FILE".as_ptr());
        if name.is_null() {
            return None;
        }
        let file = libc::open(name, libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let page = libc::mmap(ptr::null_mut(), size_of::<i64>(), libc::PROT_READ, libc::MAP_SHARED, file, 0);
        libc::close(file);
        (page != libc::MAP_FAILED).then_some(page.cast())
    }
}

/// What the kernel says, and for the wall clock what the test adds to it.
///
/// # Safety
///
/// As in C: `time` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the same arguments as in C. The library's own function is this one, so the kernel is asked.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), time) };
    if result == 0 && (clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_REALTIME_COARSE) {
        // SAFETY: the kernel has just written to it.
        let time = unsafe { &mut *time };
        let micros = offset();
        time.tv_sec += micros.div_euclid(MICROS);
        time.tv_nsec += micros.rem_euclid(MICROS) * 1_000;
        if time.tv_nsec >= 1_000_000_000 {
            (time.tv_sec, time.tv_nsec) = (time.tv_sec + 1, time.tv_nsec - 1_000_000_000);
        }
    }
    c_int::try_from(result).unwrap_or(-1)
}

fn wall_clock() -> timespec {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it can be written to.
    unsafe { clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    time
}

/// As in C. Nobody asks for the time zone any more.
///
/// # Safety
///
/// `time` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut timeval, _zone: *mut c_void) -> c_int {
    let now = wall_clock();
    // SAFETY: what the caller promised.
    if let Some(time) = unsafe { time.as_mut() } {
        *time = timeval { tv_sec: now.tv_sec, tv_usec: now.tv_nsec / 1_000 };
    }
    0
}

/// As in C.
///
/// # Safety
///
/// `time` is null or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(time: *mut time_t) -> time_t {
    let now = wall_clock();
    // SAFETY: what the caller promised.
    if let Some(time) = unsafe { time.as_mut() } {
        *time = now.tv_sec;
    }
    now.tv_sec
}
