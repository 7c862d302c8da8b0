//! The origin of a value.

use std::{fmt, path::PathBuf};

/// The origin of a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origin {
    /// As typed: `--jobs`, or the name of an argument.
    Flag(String),
    Variable(String),
    File {
        path: PathBuf,
        line: usize,
    },
    /// The program that embeds the host.
    Program,
    #[default]
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Program => f.write_str("the program"),
            Self::Default => f.write_str("default"),
        }
    }
}
