//! What a new process does before its program runs.

use std::io;

use tokio::process::Command;

use super::bounds::Bounds;

/// Makes the kernel kill a command's process when the thread that started it ends, and thus with this process. The process
/// inherits only the standard streams, and is restricted by `bounds`.
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
        // The parent may have ended before the signal was set.
        if Ok(parent) == this { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: between fork and exec, it only makes system calls, as `Bounds::keep` says of itself; it neither allocates nor
    // takes a lock.
    unsafe { command.pre_exec(bind) };
}
