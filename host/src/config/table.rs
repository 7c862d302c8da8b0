//! The settings of the program: the one place where each is declared. Flags, variables, the file, the help, the example, the
//! documentation and `taskbay config` follow from it.

use std::sync::LazyLock;

use super::{
    Kind, LogFormat, Value,
    setting::{Choice, Flag, HostSetting, Setting, choice, field, flag, more, short, signal, switch, variable},
    worker_table::WORKER,
};

impl Choice for LogFormat {
    const NAMES: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// The sections of the file, with what they are about.
pub const SECTIONS: [(&str, &str); 6] = [
    ("database", "Which database, and how it is talked to."),
    ("tasks", "The folder with the compiled plugins."),
    ("worker", "How jobs are worked."),
    ("cron", "Jobs that are added by themselves."),
    ("log", "The log, on standard error."),
    (
        PLUGINS,
        "One section per plugin, by its file's name without lib and .so. What is said in [plugins.default] holds for \
               plugins whose own sections do not say otherwise.",
    ),
];

/// The section of a plugin.
pub(super) const PLUGINS: &str = "plugins.NAME";

/// The setting whose value may hold a password.
pub(super) const URL: &str = "database.url";

/// All settings but those of plugins, in the order of the sections.
pub static SETTINGS: LazyLock<Vec<&'static HostSetting>> =
    LazyLock::new(|| [DATABASE_AND_TASKS, WORKER, CRON_AND_LOG].into_iter().flatten().collect());

static DATABASE_AND_TASKS: &[HostSetting] = &[
    Setting {
        section: "database",
        key: "url",
        kind: Kind::Secret,
        help: "the database, as postgres://user:password@host:port/database; better without a password, which goes to PGPASSWORD",
        flags: &[Flag {
            help: "the database, as postgres://user:password@host:port/database",
            ..more(
                short(flag("connection", "URL"), 'c'),
                "Without it, DATABASE_URL or PGDATABASE and the other PG* variables name the database, then the settings \
                 file. What the connection string leaves open is taken from the PG* variables. Arguments can be seen by \
                 other users of this machine: give a password by DATABASE_URL or PGPASSWORD rather than here.",
            )
        }],
        variables: &[variable("DATABASE_URL"), variable("TASKBAY_DATABASE_URL")],
        without: "from the PG* variables",
        field: field!(Text, connection),
        // Where it comes from is a longer story: see `effective`.
        effective: |_| None,
    },
    Setting {
        section: "database",
        key: "host",
        kind: Kind::Text,
        help: "instead of url: the server's name or address, or the folder of its socket",
        flags: &[],
        variables: &[],
        without: "PGHOST, or else this machine",
        field: field!(Text, file_host),
        effective: |_| None,
    },
    Setting {
        section: "database",
        key: "port",
        kind: Kind::Port,
        help: "instead of url: the server's port",
        flags: &[],
        variables: &[],
        without: "PGPORT, or else 5432",
        field: field!(Count, file_port),
        effective: |_| None,
    },
    Setting {
        section: "database",
        key: "user",
        kind: Kind::Text,
        help: "instead of url: the role to connect as; its password goes to PGPASSWORD",
        flags: &[],
        variables: &[],
        without: "PGUSER, or else your name",
        field: field!(Text, file_user),
        effective: |_| None,
    },
    Setting {
        section: "database",
        key: "dbname",
        kind: Kind::Text,
        help: "instead of url: the database's name",
        flags: &[],
        variables: &[],
        without: "PGDATABASE, or else the user's name",
        field: field!(Text, file_dbname),
        effective: |_| None,
    },
    Setting {
        section: "database",
        key: "sslmode",
        kind: Kind::Text,
        help: "instead of url: whether the connection is encrypted, as in a connection string",
        flags: &[],
        variables: &[],
        without: "PGSSLMODE, or else prefer",
        field: field!(Text, file_sslmode),
        effective: |_| None,
    },
    Setting {
        section: "database",
        key: "schema",
        kind: Kind::Text,
        help: "the schema that jobs are in",
        flags: &[short(flag("schema", "NAME"), 's')],
        variables: &[variable("TASKBAY_SCHEMA"), variable("GRAPHILE_WORKER_SCHEMA")],
        without: "",
        field: field!(Text, schema),
        effective: |settings| Some(Value::Text(settings.database.schema.clone())),
    },
    Setting {
        section: "database",
        key: "max_pool_size",
        kind: Kind::Count,
        help: "the most connections of the pool; listening has its own",
        flags: &[short(flag("max-pool-size", "N"), 'm')],
        variables: &[variable("TASKBAY_MAX_POOL_SIZE")],
        without: "",
        field: field!(Count, max_pool_size),
        effective: |settings| Some(Value::Count(settings.database.max_pool_size)),
    },
    Setting {
        section: "database",
        key: "prepared_statements",
        kind: Kind::Truth,
        help: "whether statements are prepared; poolers in transaction mode need false",
        flags: &[switch(
            "no-prepared-statements",
            "false",
            "do not prepare statements, as poolers in transaction mode need it",
        )],
        variables: &[variable("TASKBAY_PREPARED_STATEMENTS")],
        without: "",
        field: field!(Truth, prepared_statements),
        effective: |settings| Some(Value::Truth(settings.database.prepared_statements)),
    },
    Setting {
        section: "tasks",
        key: "directory",
        kind: Kind::Path,
        help: "the tasks folder",
        flags: &[],
        variables: &[variable("TASKBAY_TASKS_DIRECTORY")],
        without: "",
        field: field!(Path, tasks_directory),
        effective: |settings| Some(Value::Path(settings.folder.path.clone())),
    },
    Setting {
        section: "tasks",
        key: "settle",
        kind: Kind::Time,
        help: "how long nothing may change before the folder is listed; a file that was closed or renamed does not wait",
        flags: &[],
        variables: &[variable("TASKBAY_SETTLE")],
        without: "",
        field: field!(Time, settle),
        effective: |settings| Some(Value::Time(settings.folder.settle)),
    },
    Setting {
        section: "tasks",
        key: "settle_cap",
        kind: Kind::Time,
        help: "the longest that changes may put the listing off",
        flags: &[],
        variables: &[variable("TASKBAY_SETTLE_CAP")],
        without: "",
        field: field!(Time, settle_cap),
        effective: |settings| Some(Value::Time(settings.folder.settle_cap)),
    },
    Setting {
        section: "tasks",
        key: "rescan",
        kind: Kind::PositiveTime,
        help: "the folder is listed this often even if nothing is reported",
        flags: &[],
        variables: &[variable("TASKBAY_RESCAN")],
        without: "",
        field: field!(Time, rescan),
        effective: |settings| Some(Value::Time(settings.folder.rescan)),
    },
    Setting {
        section: "tasks",
        key: "missing_grace",
        kind: Kind::Time,
        help: "how long the folder may be missing or unusable before its tasks are given up",
        flags: &[],
        variables: &[variable("TASKBAY_MISSING_GRACE")],
        without: "for ever",
        field: field!(Time, missing_grace),
        effective: |settings| settings.folder.missing_grace.map(Value::Time),
    },
    Setting {
        section: "tasks",
        key: "strict_permissions",
        kind: Kind::Truth,
        help: "whether a folder or file that others may write to is refused; otherwise there is a warning",
        flags: &[],
        variables: &[variable("TASKBAY_STRICT_PERMISSIONS")],
        without: "",
        field: field!(Truth, strict_permissions),
        effective: |settings| Some(Value::Truth(settings.folder.strict_permissions)),
    },
    Setting {
        section: "tasks",
        key: "manifest",
        kind: Kind::Path,
        help: "a list of what may be loaded, as sha256sum writes it; nothing else is",
        flags: &[flag("manifest", "FILE")],
        variables: &[variable("TASKBAY_MANIFEST")],
        without: "all may be loaded",
        field: field!(Path, manifest),
        effective: |settings| settings.folder.manifest.clone().map(Value::Path),
    },
    Setting {
        section: "tasks",
        key: "trusted_keys",
        kind: Kind::Texts,
        help: "public keys of minisign; with any, only files that one of them has signed are loaded",
        flags: &[Flag {
            help: "load only files that this public key of minisign has signed; may be given several times",
            ..flag("trusted-key", "KEY")
        }],
        variables: &[variable("TASKBAY_TRUSTED_KEYS")],
        without: "",
        field: field!(Texts, trusted_keys),
        effective: |settings| Some(Value::Texts(settings.folder.trusted_keys.clone())),
    },
];

/// What comes after the worker's settings.
static CRON_AND_LOG: &[HostSetting] = &[
    Setting {
        section: "cron",
        key: "crontab",
        kind: Kind::Path,
        help: "the file with schedules; it need not exist",
        flags: &[Flag { help: "the file with schedules; it need not exist", ..flag("crontab", "FILE") }],
        variables: &[variable("TASKBAY_CRONTAB")],
        without: "",
        field: field!(Path, crontab),
        effective: |settings| Some(Value::Path(settings.cron.crontab.clone())),
    },
    Setting {
        section: "log",
        key: "format",
        kind: Kind::Choice(&["text", "json"]),
        help: "how lines are written: text for people, json for one object per line",
        flags: &[Flag { help: "how log lines are written, to standard error", ..flag("log-format", "FORMAT") }],
        variables: &[variable("TASKBAY_LOG_FORMAT")],
        without: "",
        field: choice!(log_format),
        effective: |settings| Some(settings.log.format.name()),
    },
    Setting {
        section: "log",
        key: "level",
        kind: Kind::Text,
        help: "how much is logged: error, warn, info, debug, trace, or directives as in RUST_LOG",
        flags: &[flag("log-level", "LEVEL"), short(switch("quiet", "warn", "log warnings and errors only"), 'q')],
        variables: &[
            variable("TASKBAY_LOG_LEVEL"),
            variable("RUST_LOG"),
            signal("GRAPHILE_LOGGER_DEBUG", "debug"),
            signal("GRAPHILE_WORKER_DEBUG", "debug"),
        ],
        without: "info; dev shows each job, too; other commands only warn",
        field: field!(Text, log_filter),
        effective: |settings| settings.log.filter.clone().map(Value::Text),
    },
    Setting {
        section: "log",
        key: "success",
        kind: Kind::Truth,
        help: "whether jobs that are done are logged, which they are from the level debug on",
        flags: &[],
        variables: &[variable("TASKBAY_LOG_SUCCESS"), signal("NO_LOG_SUCCESS", "false")],
        without: "",
        field: field!(Truth, log_success),
        effective: |settings| Some(Value::Truth(settings.log.success)),
    },
];
