//! Safe wrappers of libc calls.

use std::{ffi::c_int, fs::File, io, mem::MaybeUninit, os::fd::AsRawFd, ptr};

/// The number of thread-local keys that this process can still create, counted up to `enough`. A plugin's standard library
/// takes one that is never freed, and aborts the process when none is left.
pub(super) fn free_thread_keys(enough: usize) -> usize {
    let mut keys = Vec::with_capacity(enough);
    while keys.len() < enough {
        let mut key = 0;
        // SAFETY: `key` is valid for writing, and a key without a destructor has no further requirements.
        if unsafe { libc::pthread_key_create(&raw mut key, None) } != 0 {
            break;
        }
        keys.push(key);
    }
    for key in &keys {
        // SAFETY: the key was made above, and no value was stored under it.
        unsafe { libc::pthread_key_delete(*key) };
    }
    keys.len()
}

/// Makes this process survive termination signals. Unlike "ignore", a handler is not inherited by programs started by a
/// plugin.
pub(super) fn outlive_stop_signals() {
    extern "C" fn nothing(_: c_int) {}
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: a zeroed `sigaction` is a valid one, and the handler does nothing, which is safe in any context.
        unsafe {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
    }
}

/// Closes inherited descriptors other than the standard streams. Must be called at the very beginning of a process, before it
/// opens any descriptors itself.
pub(super) fn close_inherited() {
    // SAFETY: no code in this process owns any of them yet, and the call takes only numbers.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } == 0;
    if closed {
        return;
    }
    // Kernels before 5.9 lack the call.
    let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<c_int> = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // SAFETY: as above. The directory's descriptor is already closed, and closing it again is harmless.
        unsafe { libc::close(descriptor) };
    }
}

/// Permanently changes the user of this process.
pub(super) fn change_user(user: u32, group: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the list of groups has the given length, and the other calls take only numbers.
    let changed = unsafe {
        libc::setgroups(groups.len(), groups.as_ptr()) == 0
            && libc::setresgid(group, group, group) == 0
            && libc::setresuid(user, user, user) == 0
    };
    if changed { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes a lease that blocks opening the file for writing; the error is `EAGAIN` if it is already open for writing. The
/// signal about a blocked writer, which would end the process by default, is changed to a harmless one.
pub(super) fn lease(file: &File) -> io::Result<()> {
    /// The same on all supported processors; the libc crate lacks the constant.
    const F_SETSIG: c_int = 10;
    for (command, argument) in [(F_SETSIG, libc::SIGURG), (libc::F_SETLEASE, c_int::from(libc::F_RDLCK))] {
        // SAFETY: the descriptor is open, and both commands take a number.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Releases the lease.
pub(super) fn end_lease(file: &File) {
    // SAFETY: as above. An error means that there is no lease.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, c_int::from(libc::F_UNLCK)) };
}

/// Ends this process without running destructors, because those of a plugin's libraries may crash.
pub(super) fn exit_now(status: i32) -> ! {
    // SAFETY: it does not return, and nothing in this process is needed afterwards.
    unsafe { libc::_exit(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_keys_gives_them_back() {
        assert_eq!(free_thread_keys(64), 64);
        let all = free_thread_keys(usize::from(u16::MAX));
        assert!((64..=1024).contains(&all), "{all}");
        assert!(free_thread_keys(2048) + 32 > all);
    }
}
