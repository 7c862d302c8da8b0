//! The `taskbay` program: what was typed becomes a command, and its end an exit status.
//!
//! | status | when |
//! |---|---|
//! | 0 | the command succeeded |
//! | 1 | it failed, or a checked file would be refused |
//! | 2 | it was called wrongly |
//! | 57 | the database needs a newer program |
//! | 70 | a part of the host failed: a bug of this program |
//! | ended by the signal (143, 130 in a shell) | a stop signal was obeyed; as process 1, these numbers are the status |

use std::process::ExitCode;

use clap::Parser;
use taskbay::cli::{self, Cli, Ending, is_first, run_below_first};

fn main() -> ExitCode {
    // These are for this program itself, which starts them often: before anything that costs time or threads.
    match std::env::args_os().nth(1) {
        Some(command) if command == "plugin-child" => return taskbay::plugin::plugin_child(),
        Some(command) if command == "postgres-child" => return taskbay::embedded_postgres::postgres_child(),
        _ => {}
    }
    if let Some(status) = run_below_first() {
        return status;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            return ExitCode::from(cli::report_usage_error(error));
        }
    };
    match cli::execute(cli) {
        Ok(Ending::Success) => ExitCode::SUCCESS,
        Ok(Ending::Refusals) => ExitCode::FAILURE,
        Ok(Ending::Signal(signal)) => end_by(signal),
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_code())
        }
    }
}

/// Ends this process as the signal would have, had nobody listened to it: supervisors tell a stop from a crash by it.
fn end_by(signal: i32) -> ExitCode {
    // The kernel keeps the first process of a container from ending so.
    if !is_first() {
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
}
