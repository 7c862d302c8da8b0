//! What a flag that a command does not have may have been meant to be: a setting, which may have another name as a flag, or a
//! flag of another command.

use clap::{Command, CommandFactory};

use super::Cli;
use crate::config::{self, Flag, PLUGIN_SETTINGS, SETTINGS};

/// The most tips for one flag.
const SHOWN: usize = 3;

/// Tips, the best first.
#[derive(Debug, Default)]
pub(super) struct Tips {
    pub(super) tips: Vec<String>,
    /// They are for what was typed, or for what is spelled more like it than any flag of the command.
    pub(super) certain: bool,
}

/// A setting as far as tips go.
struct Key {
    section: &'static str,
    key: &'static str,
    flags: &'static [Flag],
}

/// A tip for a flag that is an argument without a name of the command whose usage this is.
pub(super) fn of_argument(argument: &str, usage: &str) -> Option<String> {
    let name = argument.split('=').next().unwrap_or(argument);
    match name {
        "--payload" | "--task" if usage.contains("taskbay add") => Some(
            "the task and its payload have no flags: taskbay add send_email '{\"to\": \"ada@example.com\"}'".to_owned(),
        ),
        "--id" if usage.contains("taskbay jobs") => Some("ids have no flag: taskbay jobs show 42".to_owned()),
        _ => None,
    }
}

/// Tips for an unknown flag, as it was typed. `suggested` is the flag of the same command that is spelled most like it.
pub(super) fn of(argument: &str, suggested: Option<&str>) -> Tips {
    let Some(name) = argument.strip_prefix("--").map(|name| name.split('=').next().unwrap_or(name)) else {
        return Tips::default();
    };
    let program = Cli::command();
    // Who knows the settings file may write `--worker.concurrency`.
    let key = name.rsplit('.').next().unwrap_or(name).replace('-', "_").to_lowercase();
    let mut tips: Vec<String> =
        keys().filter(|setting| setting.key == key).map(|setting| setting.tip(&program)).collect();
    let commands = commands_with(&program, name);
    if !commands.is_empty() {
        tips.push(format!("--{name} is a flag of {}", listed(&commands)));
    }
    if !tips.is_empty() {
        tips.truncate(SHOWN);
        return Tips { tips, certain: true };
    }
    let all: Vec<&str> = keys().map(|setting| setting.key).collect();
    let is_suggested = |setting: &Key| setting.flags.iter().any(|flag| Some(flag.typed().as_str()) == suggested);
    let near = config::nearest(&key, &all).and_then(|near| keys().find(|setting| setting.key == near));
    let Some(near) = near.filter(|setting| !is_suggested(setting)) else { return Tips::default() };
    let distance = |known: &str| strsim::damerau_levenshtein(&key, &known.trim_start_matches('-').replace('-', "_"));
    let certain = suggested.is_none_or(|suggested| distance(near.key) < distance(suggested));
    Tips { tips: vec![near.tip(&program)], certain }
}

fn keys() -> impl Iterator<Item = Key> {
    let of_host = SETTINGS.iter().map(|it| Key { section: it.section, key: it.key, flags: it.flags });
    of_host.chain(PLUGIN_SETTINGS.iter().map(|it| Key { section: it.section, key: it.key, flags: it.flags }))
}

impl Key {
    /// Where the setting can be set.
    fn tip(&self, program: &Command) -> String {
        let Self { section, key, flags } = self;
        let in_file = format!("{key} in the section [{section}] of the settings file");
        let flags = flags.iter().map(|flag| {
            let short = flag.short.map_or_else(String::new, |short| format!("-{short}, "));
            let commands = commands_with(program, flag.long);
            let of = if commands.is_empty() { String::new() } else { format!(" of {}", listed(&commands)) };
            format!("{short}{}{of}", flag.typed())
        });
        let flags: Vec<String> = flags.collect();
        if flags.is_empty() {
            format!("the setting {in_file} has no flag")
        } else {
            format!("the setting {in_file} is {}", flags.join(" or "))
        }
    }
}

/// The commands that have a flag; none if all have it.
fn commands_with(program: &Command, long: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(program, "", long, &mut found);
    if found.iter().any(String::is_empty) { Vec::new() } else { found }
}

fn collect(command: &Command, path: &str, long: &str, found: &mut Vec<String>) {
    let has_it = |names: Option<Vec<&str>>| names.is_some_and(|names| names.contains(&long));
    if command.get_arguments().any(|argument| has_it(argument.get_long_and_visible_aliases())) {
        found.push(path.to_owned());
    }
    for sub in command.get_subcommands() {
        let path = format!("{path}{}{}", if path.is_empty() { "" } else { " " }, sub.get_name());
        collect(sub, &path, long, found);
    }
}

/// `taskbay run`, or `taskbay run, dev and config`.
fn listed(commands: &[String]) -> String {
    const MOST: usize = 4;
    match commands {
        [] => String::new(),
        [one] => format!("`taskbay {one}`"),
        [first @ .., last] if commands.len() <= MOST => format!("`taskbay {}` and `{last}`", first.join("`, `")),
        _ => format!("`taskbay {}` and others", commands[..MOST].join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_setting_is_answered_with_its_flag_and_its_place_in_the_file() {
        let Tips { tips, certain } = of("--concurrency=5", Some("--connection"));
        assert!(certain);
        let tip = &tips[0];
        assert!(tip.contains("concurrency in the section [worker]") && tip.contains("-j, --jobs"), "{tip}");
        assert!(tip.contains("`taskbay run`, `dev` and `config`"), "{tip}");
        assert_eq!(of("--worker.concurrency", None).tips, tips);
    }

    #[test]
    fn a_flag_of_another_command_is_answered_with_the_command() {
        assert_eq!(of("--once", None).tips, ["--once is a flag of `taskbay run`"]);
        assert!(of("--payload", None).tips[0].contains("`taskbay jobs show`"));
    }

    #[test]
    fn every_setting_is_found_by_its_key() {
        for setting in keys() {
            let found = of(&format!("--{}", setting.key.replace('_', "-")), None);
            let place = format!("[{}]", setting.section);
            assert!(found.certain && found.tips.iter().any(|tip| tip.contains(&place)), "{}: {found:?}", setting.key);
        }
    }

    #[test]
    fn a_mistyped_key_is_answered_with_the_nearest_and_nonsense_with_nothing() {
        let Tips { tips, certain } = of("--concurency", Some("--once"));
        assert!(certain && tips[0].contains("[worker]"), "{tips:?}");
        assert!(!of("--onse-jobs", Some("--once")).certain);
        assert!(of("--frobnicate", None).tips.is_empty() && of("-x", None).tips.is_empty());
        assert!(of("--pol-interval", Some("--poll-interval")).tips.is_empty(), "that was said already");
    }
}
