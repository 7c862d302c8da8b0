//! The declaration of a setting: its places, values, meaning, and access to the result.

use super::{Kind, Layer, PluginLayer, Settings, Value};
use crate::plugin::PluginSettings;

/// The section of a plugin.
pub(super) const PLUGINS: &str = "plugins.NAME";

/// A setting of the whole program.
pub type HostSetting = Setting<Layer, Settings>;
/// A setting of each plugin.
pub type PluginSetting = Setting<PluginLayer, PluginSettings>;

/// A setting, with all facts needed to read, complete, check or explain it.
#[derive(Debug)]
pub struct Setting<L: 'static, S: 'static> {
    /// The section of the file; for plugins `plugins.NAME`.
    pub section: &'static str,
    pub key: &'static str,
    pub kind: Kind,
    /// The meaning, as a phrase in lower case without a full stop.
    pub help: &'static str,
    pub flags: &'static [Flag],
    /// Environment variables; the first one that is set counts.
    pub variables: &'static [Variable],
    /// A description of the behaviour without a value, if there is no default.
    pub without: &'static str,
    pub(super) field: Field<L>,
    /// The effective value.
    pub(super) effective: fn(&S) -> Option<Value>,
}

/// A flag of the command line.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    /// The value's name in the help or, for a flag without a value, the value that it sets.
    pub value: FlagValue,
    /// Replaces the setting's help; empty: the setting's.
    pub help: &'static str,
    /// Additional text for `--help`; may be empty.
    pub more: &'static str,
}

/// The value of a flag.
#[derive(Debug, Clone, Copy)]
pub enum FlagValue {
    /// A value with this name in the help.
    Named(&'static str),
    /// No value: the flag sets this one.
    Means(&'static str),
}

/// An environment variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    pub name: &'static str,
    /// The value that it sets whatever its content; `None`: its content.
    pub means: Option<&'static str>,
}

/// Access to a value in a layer.
#[derive(Debug)]
pub(super) struct Field<L> {
    pub(super) get: fn(&L) -> Option<Value>,
    pub(super) set: fn(&mut L, Value),
}

impl<L, S> Setting<L, S> {
    /// Whether the setting differs between the two.
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
    /// As typed.
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

/// A field of a layer with the type of a [`Value`].
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

/// A field of a layer with one of a few values.
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
