//! The flags of the settings, as the table of settings declares them.

use clap::{
    Arg, ArgAction, ArgMatches, Command,
    builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser},
};

use crate::config::{
    Flag, FlagValue, Kind, Layer, Origin, PLUGIN_SETTINGS, PluginSetting, SETTINGS, Setting, Value, default_value,
};

/// Adds the flags of some sections' settings to a command. In a global heading they work after each subcommand.
pub(super) fn add(mut command: Command, sections: &[&str], heading: Option<&'static str>, global: bool) -> Command {
    for setting in SETTINGS.iter().filter(|setting| sections.contains(&setting.section)) {
        let default = default_value(setting);
        for flag in setting.flags {
            command = command.arg(argument(setting, flag, default.as_ref(), heading, global));
        }
    }
    command
}

/// Adds the flags that count for all plugins.
pub(super) fn add_for_plugins(mut command: Command) -> Command {
    for setting in PLUGIN_SETTINGS {
        for flag in setting.flags {
            command = command.arg(argument(setting, flag, None, None, false));
        }
    }
    command
}

/// What the flags of some sections' settings say.
pub(super) fn read(matches: &ArgMatches, sections: &[&str]) -> Layer {
    let mut layer = Layer::default();
    for setting in SETTINGS.iter().filter(|setting| sections.contains(&setting.section)) {
        for flag in setting.flags {
            if let Some(value) = given(setting.kind, flag, matches) {
                layer.set(setting, value, Origin::Flag(flag.typed()));
            }
        }
    }
    layer
}

/// What the flags for all plugins say.
pub(super) fn read_for_plugins(matches: &ArgMatches, layer: &mut Layer) {
    let flags = PLUGIN_SETTINGS.iter().flat_map(|setting| setting.flags.iter().map(move |flag| (setting, flag)));
    for (setting, flag) in flags {
        let setting: &PluginSetting = setting;
        if let Some(value) = given(setting.kind, flag, matches) {
            layer.set_for_all_plugins(setting, value, Origin::Flag(flag.typed()));
        }
    }
}

fn argument<L, S>(
    setting: &Setting<L, S>,
    flag: &Flag,
    default: Option<&Value>,
    heading: Option<&'static str>,
    global: bool,
) -> Arg {
    let mut help = sentence(if flag.help.is_empty() { setting.help } else { flag.help });
    let worth_saying = default.filter(|default| **default != Value::Texts(Vec::new()));
    if let (FlagValue::Named(_), Some(default)) = (flag.value, worth_saying) {
        help = format!("{help} [default: {}]", default.to_string().trim_matches('"'));
    }
    let mut argument = Arg::new(flag.long).long(flag.long).short(flag.short).global(global);
    if !flag.more.is_empty() {
        argument = argument.long_help(format!("{help}\n\n{}", flag.more));
    }
    if let Some(heading) = heading {
        argument = argument.help_heading(heading);
    }
    for other in setting.flags.iter().filter(|other| other.long != flag.long) {
        argument = argument.conflicts_with(other.long);
    }
    argument = argument.help(help);
    match flag.value {
        FlagValue::Means(_) => argument.action(ArgAction::SetTrue),
        FlagValue::Named(value) => {
            let argument = argument.value_name(value);
            match setting.kind {
                Kind::Texts => argument.action(ArgAction::Append),
                Kind::Choice(choices) => argument
                    .value_parser(PossibleValuesParser::new(choices).map(Value::Text))
                    .hide_possible_values(false),
                Kind::Path => argument.value_parser(OsStringValueParser::new().map(|path| Value::Path(path.into()))),
                kind => argument.value_parser(move |text: &str| kind.read_text(text)),
            }
        }
    }
}

fn given(kind: Kind, flag: &Flag, matches: &ArgMatches) -> Option<Value> {
    match (flag.value, kind) {
        (FlagValue::Means(text), _) => matches.get_flag(flag.long).then(|| kind.read_text(text).ok()).flatten(),
        (FlagValue::Named(_), Kind::Texts) => {
            matches.get_many::<String>(flag.long).map(|texts| Value::Texts(texts.cloned().collect()))
        }
        (FlagValue::Named(_), _) => matches.get_one::<Value>(flag.long).cloned(),
    }
}

/// With a capital letter, as clap's own texts.
fn sentence(help: &str) -> String {
    let mut chars = help.chars();
    chars.next().map(|first| first.to_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}
