//! The things that a process can only ask of libc, each wrapped so that the callers need no `unsafe`.

use std::{ffi::c_int, fs::File, io, mem::MaybeUninit, os::fd::AsRawFd, ptr};

use tokio::process::Command;

use super::bounds::Bounds;

/// How many more thread-local keys this process can make, counted up to `enough`. A plugin's standard library takes one
/// that never comes back, and the process is aborted when there is none.
pub(super) fn free_thread_keys(enough: usize) -> usize {
    let mut keys = Vec::with_capacity(enough);
    while keys.len() < enough {
        let mut key = 0;
        // SAFETY: `key` is a place for the key, and a key without destructor needs nothing of us.
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

/// Makes this process survive the signals that end a program from outside. Unlike "ignore", a handler is not inherited by
/// the programs that a plugin may start.
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

/// Keeps descriptors that this process has not opened itself from whatever runs in it next: whoever started this program may
/// have left some open. For the very beginning of a process, while those of the standard streams are all that it knows of.
pub(super) fn close_inherited() {
    // SAFETY: nothing in this process owns any of them yet, and the call takes numbers.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } == 0;
    if closed {
        return;
    }
    // Kernels before 5.9 do not know the call.
    let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<c_int> = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // SAFETY: as above. That of the listing is closed by now, and closing it again does no harm.
        unsafe { libc::close(descriptor) };
    }
}

/// Makes this process one of another user, for good.
pub(super) fn change_user(user: u32, group: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the list of groups is as long as is said, and the other calls take numbers.
    let changed = unsafe {
        libc::setgroups(groups.len(), groups.as_ptr()) == 0
            && libc::setresgid(group, group, group) == 0
            && libc::setresuid(user, user, user) == 0
    };
    if changed { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel kill what a command starts when the thread that starts it ends, and with that thread this process. What it
/// starts inherits no descriptor but the standard streams, and keeps to `bounds`.
pub(super) fn end_with_this_process(command: &mut Command, bounds: Bounds) {
    let this = i32::try_from(std::process::id());
    let bind = move || {
        // SAFETY: a plain system call without memory of ours, which closes nothing before the program is there. An error
        // means an old kernel.
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        bounds.keep()?;
        // SAFETY: both are plain system calls without memory of ours.
        let bound = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } == 0;
        if !bound {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        let parent = unsafe { libc::getppid() };
        // This process may have ended before the kernel was asked.
        if Ok(parent) == this { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: between fork and exec, it only makes system calls, as `Bounds::keep` says of itself; it neither allocates nor
    // takes a lock.
    unsafe { command.pre_exec(bind) };
}

/// Has whoever opens the file for writing wait; the error is `EAGAIN` if somebody has it open so. The signal that tells of
/// such a one is changed to one which does nothing, since by default it ends the process.
pub(super) fn lease(file: &File) -> io::Result<()> {
    /// The same on all processors that this host runs on; the libc crate has no name for it here.
    const F_SETSIG: c_int = 10;
    for (command, argument) in [(F_SETSIG, libc::SIGURG), (libc::F_SETLEASE, c_int::from(libc::F_RDLCK))] {
        // SAFETY: the descriptor is open, and both commands take a number.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Lets writers in again.
pub(super) fn end_lease(file: &File) {
    // SAFETY: as above. An error would mean that there is no lease (any more).
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, c_int::from(libc::F_UNLCK)) };
}

/// Ends this process without running destructors: those of a plugin's libraries are known to crash.
pub(super) fn exit_now(status: i32) -> ! {
    // SAFETY: it does not return, and nothing of this process is needed any more.
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
