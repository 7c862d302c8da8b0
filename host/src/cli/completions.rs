//! `taskbay completions`: what the shell needs to complete command lines.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, CliError, Ending, output::print_file};

/// Print a shell's completion script
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taskbay completions bash > ~/.local/share/bash-completion/completions/taskbay
  taskbay completions zsh > ~/.zfunc/_taskbay
  taskbay completions fish > ~/.config/fish/completions/taskbay.fish")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn execute(self) -> Result<Ending, CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "taskbay", &mut script);
        print_file(&script)?;
        Ok(Ending::Success)
    }
}
