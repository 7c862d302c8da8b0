//! The `taskbay` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|command| command == "plugin-child") {
        return taskbay::plugin::plugin_child();
    }
    ExitCode::SUCCESS
}
