//! The settings of each plugin: the one place where they are declared.

use super::{
    Kind, Value,
    setting::{Choice, PluginSetting, Setting, choice, field, more, switch, variable},
    table::PLUGINS,
};
use crate::plugin::Isolation;

impl Choice for Isolation {
    const NAMES: &'static [(&'static str, Self)] = &[("child", Self::Child), ("in-process", Self::InProcess)];
}

/// The settings of a plugin. A flag or variable counts for all plugins, whatever the file says.
pub static PLUGIN_SETTINGS: &[PluginSetting] = &[
    Setting {
        section: PLUGINS,
        key: "isolation",
        kind: Kind::Choice(&["child", "in-process"]),
        help: "where it runs: child in a process of its own, in-process in Taskbay's",
        flags: &[more(
            switch("in-process", "in-process", "run all plugins in this process rather than in processes of their own"),
            "Faster by some microseconds a job, and for trusted code only: a plugin that crashes takes the host with it.",
        )],
        variables: &[variable("TASKBAY_ISOLATION")],
        without: "",
        field: choice!(isolation),
        effective: |settings| Some(settings.isolation.name()),
    },
    Setting {
        section: PLUGINS,
        key: "memory_limit",
        kind: Kind::Size,
        help: "the most memory that its process may allocate",
        flags: &[],
        variables: &[variable("TASKBAY_MEMORY_LIMIT")],
        without: "none",
        field: field!(Size, memory_limit),
        effective: |settings| settings.memory_limit.map(Value::Size),
    },
    Setting {
        section: PLUGINS,
        key: "timeout",
        kind: Kind::PositiveTime,
        help: "how long a job may run whose task states no limit of its own",
        flags: &[],
        variables: &[variable("TASKBAY_TIMEOUT")],
        without: "none",
        field: field!(Time, timeout),
        effective: |settings| settings.timeout.map(Value::Time),
    },
    Setting {
        section: PLUGINS,
        key: "cancel_grace",
        kind: Kind::Time,
        help: "how long a job may take to end after it was told to",
        flags: &[],
        variables: &[variable("TASKBAY_CANCEL_GRACE")],
        without: "",
        field: field!(Time, cancel_grace),
        effective: |settings| Some(Value::Time(settings.cancel_grace)),
    },
    Setting {
        section: PLUGINS,
        key: "start_timeout",
        kind: Kind::PositiveTime,
        help: "how long loading and starting up may take",
        flags: &[],
        variables: &[variable("TASKBAY_START_TIMEOUT")],
        without: "",
        field: field!(Time, start_timeout),
        effective: |settings| Some(Value::Time(settings.start_timeout)),
    },
    Setting {
        section: PLUGINS,
        key: "roll_back",
        kind: Kind::Truth,
        help: "whether a new build that crashes three times in ten minutes goes back to the one before it, if that never did",
        flags: &[],
        variables: &[variable("TASKBAY_ROLL_BACK")],
        without: "",
        field: field!(Truth, roll_back),
        effective: |settings| Some(Value::Truth(settings.roll_back)),
    },
    Setting {
        section: PLUGINS,
        key: "settings",
        kind: Kind::Table,
        help: "handed to the plugin's start-up",
        flags: &[],
        variables: &[],
        without: "",
        field: field!(Table, settings),
        effective: |settings| Some(Value::Table(settings.settings.clone())),
    },
];
