//! The declarations of the program's settings. Flags, variables, the file, the help, the example, the documentation and
//! `taskbay config` are derived from them.

use std::sync::LazyLock;

use super::{
    Kind, LogFormat, Value,
    setting::{
        Choice, Flag, HostSetting, PLUGINS, Setting, choice, field, flag, more, short, signal, switch, variable,
    },
    worker_table::WORKER,
};

impl Choice for LogFormat {
    const NAMES: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// The sections of the file, with descriptions.
pub const SECTIONS: [(&str, &str); 6] = [
    ("database", "The database and its connections."),
    ("tasks", "The folder with plugins and executables."),
    ("worker", "How jobs are claimed and run."),
    ("cron", "Scheduled jobs."),
    ("log", "The log, on standard error."),
    (
        PLUGINS,
        "One section for each plugin, named after its file without lib and .so. [plugins.default] has the defaults for \
               all plugins.",
    ),
];

/// The setting that may contain a password.
pub(super) const URL: &str = "database.url";

/// All settings except those of plugins, in the order of the sections.
pub static SETTINGS: LazyLock<Vec<&'static HostSetting>> =
    LazyLock::new(|| [DATABASE_AND_TASKS, WORKER, CRON_AND_LOG].into_iter().flatten().collect());

static DATABASE_AND_TASKS: &[HostSetting] = &[
    Setting {
        section: "database",
        key: "url",
        kind: Kind::Secret,
        help: "the database as postgres://user:password@host:port/database; keep the password in PGPASSWORD instead",
        flags: &[Flag {
            help: "the database as postgres://user:password@host:port/database",
            ..more(
                short(flag("connection", "URL"), 'c'),
                "By default, DATABASE_URL, PGDATABASE and the other PG* variables, or the settings file name the database. \
                 The PG* variables complete the connection string. Other users of this machine can see arguments: pass \
                 a password by DATABASE_URL or PGPASSWORD instead.",
            )
        }],
        variables: &[variable("DATABASE_URL"), variable("TASKBAY_DATABASE_URL")],
        without: "from the PG* variables",
        field: field!(Text, connection),
        // Has several sources: see `effective`.
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
        help: "instead of url: the encryption of the connection, as in a connection string",
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
        help: "the schema of the job tables",
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
        help: "the maximum number of pooled connections; the listener has its own",
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
        help: "whether to prepare statements; poolers in transaction mode require false",
        flags: &[switch(
            "no-prepared-statements",
            "false",
            "do not prepare statements; poolers in transaction mode require this",
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
        help: "the quiet time after a change before the folder is listed; closed and renamed files do not wait",
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
        help: "the maximum delay of a listing by continuous changes",
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
        help: "the interval between listings of the folder without reported changes",
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
        help: "the time after which a missing or unusable folder's tasks are removed",
        flags: &[],
        variables: &[variable("TASKBAY_MISSING_GRACE")],
        without: "never",
        field: field!(Time, missing_grace),
        effective: |settings| settings.folder.missing_grace.map(Value::Time),
    },
    Setting {
        section: "tasks",
        key: "strict_permissions",
        kind: Kind::Truth,
        help: "whether to refuse folders and files that other users can write to, instead of a warning",
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
        help: "a list of the files that may be loaded, in the format of sha256sum; all others are refused",
        flags: &[flag("manifest", "FILE")],
        variables: &[variable("TASKBAY_MANIFEST")],
        without: "all files may be loaded",
        field: field!(Path, manifest),
        effective: |settings| settings.folder.manifest.clone().map(Value::Path),
    },
    Setting {
        section: "tasks",
        key: "trusted_keys",
        kind: Kind::Texts,
        help: "minisign public keys; if there are any, only files signed with one of them are loaded",
        flags: &[Flag {
            help: "load only files signed with this minisign public key; may be given several times",
            ..flag("trusted-key", "KEY")
        }],
        variables: &[variable("TASKBAY_TRUSTED_KEYS")],
        without: "",
        field: field!(Texts, trusted_keys),
        effective: |settings| Some(Value::Texts(settings.folder.trusted_keys.clone())),
    },
];

/// The settings after the worker's.
static CRON_AND_LOG: &[HostSetting] = &[
    Setting {
        section: "cron",
        key: "crontab",
        kind: Kind::Path,
        help: "the file with schedules, if it exists",
        flags: &[Flag { help: "the file with schedules, if it exists", ..flag("crontab", "FILE") }],
        variables: &[variable("TASKBAY_CRONTAB")],
        without: "",
        field: field!(Path, crontab),
        effective: |settings| Some(Value::Path(settings.cron.crontab.clone())),
    },
    Setting {
        section: "log",
        key: "format",
        kind: Kind::Choice(&["text", "json"]),
        help: "the format of lines: readable text, or one JSON object per line",
        flags: &[Flag { help: "the format of log lines on standard error", ..flag("log-format", "FORMAT") }],
        variables: &[variable("TASKBAY_LOG_FORMAT")],
        without: "",
        field: choice!(log_format),
        effective: |settings| Some(settings.log.format.name()),
    },
    Setting {
        section: "log",
        key: "level",
        kind: Kind::Text,
        help: "the level: error, warn, info, debug or trace, or directives as in RUST_LOG",
        flags: &[flag("log-level", "LEVEL"), short(switch("quiet", "warn", "log warnings and errors only"), 'q')],
        variables: &[
            variable("TASKBAY_LOG_LEVEL"),
            variable("RUST_LOG"),
            signal("GRAPHILE_LOGGER_DEBUG", "debug"),
            signal("GRAPHILE_WORKER_DEBUG", "debug"),
        ],
        without: "info; debug for dev; warn for other commands",
        field: field!(Text, log_filter),
        effective: |settings| settings.log.filter.clone().map(Value::Text),
    },
    Setting {
        section: "log",
        key: "success",
        kind: Kind::Truth,
        help: "whether to log done jobs, at the level debug",
        flags: &[],
        variables: &[variable("TASKBAY_LOG_SUCCESS"), signal("NO_LOG_SUCCESS", "false")],
        without: "",
        field: field!(Truth, log_success),
        effective: |settings| Some(Value::Truth(settings.log.success)),
    },
];
