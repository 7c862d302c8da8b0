//! What a setting is: where it can be set, what it may be, what it is for, and how it is read from the result.

use std::{fmt, path::PathBuf};

use super::{Kind, Layer, PluginLayer, Settings, Value};
use crate::plugin::PluginSettings;

/// A setting of the whole program.
pub type HostSetting = Setting<Layer, Settings>;
/// A setting of each plugin.
pub type PluginSetting = Setting<PluginLayer, PluginSettings>;

/// One setting: everything that is to be known of it, for all who read, complete, check or explain settings.
#[derive(Debug)]
pub struct Setting<L: 'static, S: 'static> {
    /// The section of the file; for plugins `plugins.NAME`.
    pub section: &'static str,
    pub key: &'static str,
    pub kind: Kind,
    /// What it means: half a sentence that begins in lower case and has no full stop.
    pub help: &'static str,
    pub flags: &'static [Flag],
    /// Variables of the environment; the first one that is set counts.
    pub variables: &'static [Variable],
    /// What is said where there is no default.
    pub without: &'static str,
    pub(super) field: Field<L>,
    /// The value that is in force.
    pub(super) effective: fn(&S) -> Option<Value>,
}

/// A flag of the command line.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    /// What the value is called in the help; or, for a flag without a value, which value it means.
    pub value: FlagValue,
    /// Instead of the setting's help; empty: that one.
    pub help: &'static str,
    /// What `--help` says beyond `-h`; may be empty.
    pub more: &'static str,
}

/// What comes with a flag.
#[derive(Debug, Clone, Copy)]
pub enum FlagValue {
    /// A value, called so in the help.
    Named(&'static str),
    /// Nothing: the flag means this value.
    Means(&'static str),
}

/// A variable of the environment.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    pub name: &'static str,
    /// The value that it means whatever it says; `None`: what it says.
    pub means: Option<&'static str>,
}

/// Where a value is in a layer.
#[derive(Debug)]
pub(super) struct Field<L> {
    pub(super) get: fn(&L) -> Option<Value>,
    pub(super) set: fn(&mut L, Value),
}

/// Where a value comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origin {
    /// As it is typed: `--jobs`, or the name of an argument.
    Flag(String),
    Variable(String),
    File {
        path: PathBuf,
        line: usize,
    },
    #[default]
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

impl<L, S> Setting<L, S> {
    /// Whether the two mean something else for it.
    pub(crate) fn differs(&self, one: &S, other: &S) -> bool {
        (self.effective)(one) != (self.effective)(other)
    }

    /// `section.key`.
    pub fn path(&self) -> String {
        path_of(self.section, self.key)
    }
}

/// The name of a setting in messages, and of its origin in a layer.
pub(super) fn path_of(section: &str, key: &str) -> String {
    format!("{section}.{key}")
}

impl Flag {
    /// As it is typed.
    pub fn typed(&self) -> String {
        format!("--{}", self.long)
    }
}

/// A flag with a value.
pub(super) const fn flag(long: &'static str, value: &'static str) -> Flag {
    Flag { long, short: None, value: FlagValue::Named(value), help: "", more: "" }
}

/// A flag without one.
pub(super) const fn switch(long: &'static str, means: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, value: FlagValue::Means(means), help, more: "" }
}

pub(super) const fn short(flag: Flag, letter: char) -> Flag {
    Flag { short: Some(letter), ..flag }
}

pub(super) const fn more(flag: Flag, more: &'static str) -> Flag {
    Flag { more, ..flag }
}

pub(super) const fn variable(name: &'static str) -> Variable {
    Variable { name, means: None }
}

pub(super) const fn signal(name: &'static str, means: &'static str) -> Variable {
    Variable { name, means: Some(means) }
}

/// The names of a choice's values.
pub(super) trait Choice: Copy + PartialEq + 'static {
    const NAMES: &'static [(&'static str, Self)];

    fn name(self) -> Value {
        let name = Self::NAMES.iter().find(|(_, choice)| *choice == self).map_or("", |(name, _)| name);
        Value::Text(name.to_owned())
    }

    fn named(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice)
    }
}

/// A field of a layer that holds what a [`Value`] holds.
macro_rules! field {
    ($variant:ident, $field:ident) => {
        $crate::config::setting::Field {
            get: |layer| layer.$field.clone().map($crate::config::Value::$variant),
            set: |layer, value| {
                if let $crate::config::Value::$variant(value) = value {
                    layer.$field = Some(value);
                }
            },
        }
    };
}

/// A field of a layer that holds one of a few values.
macro_rules! choice {
    ($field:ident) => {
        $crate::config::setting::Field {
            get: |layer| layer.$field.map($crate::config::setting::Choice::name),
            set: |layer, value| {
                if let $crate::config::Value::Text(name) = value {
                    layer.$field = $crate::config::setting::Choice::named(&name);
                }
            },
        }
    };
}

pub(super) use {choice, field};
