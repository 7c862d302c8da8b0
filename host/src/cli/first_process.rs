//! As the first process of a container, this program is two: one that runs the command, and one that does what the first
//! process has to do.
//!
//! The kernel hands every process to the first one whose parent has ended, and protects the first one from signals whose default
//! is to end a process. To have both in the process that runs the command would take the ends of its own children away from it.

use std::{
    env,
    io::{Write, stderr, stdin},
    os::unix::process::CommandExt,
    process::{self, Command, ExitCode},
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use signal_hook::{
    consts::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH},
    iterator::Signals,
};

/// What is passed on to the command.
const PASSED_ON: [i32; 8] = [SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];

/// Whether this is the first process of a container, or of the machine.
pub fn is_first() -> bool {
    process::id() == 1
}

/// If this is the first process, runs the command in another one and gives the exit status of that when it has ended: 128 and the
/// number of the signal, if one has ended it.
pub fn run_below_first() -> Option<ExitCode> {
    if !is_first() {
        return None;
    }
    match Below::start() {
        Ok(below) => Some(below.until_the_end()),
        Err(error) => {
            let problem =
                "processes whose parents have ended are not reaped, because this program could not start itself again";
            let _ = writeln!(stderr(), "taskbay: {problem}: {error}");
            None
        }
    }
}

/// The process that runs the command.
struct Below {
    id: Pid,
    signals: Signals,
}

impl Below {
    fn start() -> std::io::Result<Self> {
        // Before there is a process whose end could be missed.
        let signals = Signals::new(PASSED_ON.iter().chain(&[SIGCHLD]))?;
        let mut arguments = env::args_os();
        let mut command = Command::new(env::current_exe()?);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        // In a group of its own, so that a Ctrl-C in a terminal does not come twice.
        let child = command.args(arguments).process_group(0).spawn()?;
        let id = Pid::from_child(&child);
        // There need not be a terminal.
        let _ = rustix::termios::tcsetpgrp(stdin(), id);
        Ok(Self { id, signals })
    }

    fn until_the_end(mut self) -> ExitCode {
        loop {
            for signal in self.signals.wait() {
                if signal != SIGCHLD {
                    // It may just have ended.
                    let _ = Signal::from_named_raw(signal).map(|signal| kill_process(self.id, signal));
                } else if let Some(status) = reap(self.id) {
                    return exit_code(status);
                }
            }
        }
    }
}

/// Takes note of all ends, and gives that of this process if it was among them.
fn reap(id: Pid) -> Option<WaitStatus> {
    while let Ok(Some((ended, status))) = wait(WaitOptions::NOHANG) {
        if ended == id {
            return Some(status);
        }
    }
    None
}

fn exit_code(status: WaitStatus) -> ExitCode {
    let by_signal = || status.terminating_signal().map(|signal| 128 + signal);
    let code = status.exit_status().or_else(by_signal).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
