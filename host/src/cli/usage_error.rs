//! What is said of a command line that cannot be understood.

use std::borrow::Cow;

use clap::{
    Command, CommandFactory, Error,
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{
    Cli, flag_tips,
    output::{self, Text},
};
use crate::escape;

/// Says on standard error what is wrong, or on standard output the help that was asked for; and returns the exit status.
pub fn report(mut error: Error) -> u8 {
    let status = if error.use_stderr() { 2 } else { 0 };
    point_to_settings(&mut error);
    show_whole_usage(&mut error);
    let context: Vec<(ContextKind, ContextValue)> =
        error.context().map(|(kind, value)| (kind, escaped(value))).collect();
    for (kind, value) in context {
        error.insert(kind, value);
    }
    let plain = error.render().to_string();
    if escape::block(&plain) == plain {
        let _ = error.print();
    } else {
        // Only what is told apart in the context keeps its colours.
        let mut text = Text::default();
        text.block(plain.trim_end());
        output::note(text);
    }
    status
}

/// Says of an unknown flag which setting it may stand for, and which commands have it.
fn point_to_settings(error: &mut Error) {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let Some(argument) = text(ContextKind::InvalidArg).filter(|_| error.kind() == ErrorKind::UnknownArgument) else {
        return;
    };
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    let flag_tips::Tips { tips, certain } = match flag_tips::of_argument(&argument, &usage) {
        Some(tip) => flag_tips::Tips { tips: vec![tip], certain: true },
        None => flag_tips::of(&argument, text(ContextKind::SuggestedArg).as_deref()),
    };
    if tips.is_empty() {
        return;
    }
    if certain {
        // The flag that is spelled most like it is another one.
        error.remove(ContextKind::SuggestedArg);
    }
    let mut all = match error.remove(ContextKind::Suggested) {
        Some(ContextValue::StyledStrs(tips)) => tips,
        _ => Vec::new(),
    };
    all.splice(0..0, tips.into_iter().map(StyledStr::from));
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(all));
}

/// The usage line that comes with these errors shows the arguments that were typed, or one that is spelled like them, as if the command
/// needed them.
fn show_whole_usage(error: &mut Error) {
    if !matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::ArgumentConflict) {
        return;
    }
    if let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) {
        let usage = usage_of_command_in(&usage.to_string());
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    }
}

/// The usage line of the command that another usage line is for.
fn usage_of_command_in(line: &str) -> StyledStr {
    let mut program = Cli::command();
    // With it, each command knows the names of those above it.
    program.build();
    let mut command: &mut Command = &mut program;
    for word in line.split_whitespace().skip_while(|word| *word != "taskbay").skip(1) {
        if command.find_subcommand(word).is_none() {
            break;
        }
        command = command.find_subcommand_mut(word).expect("it was found");
    }
    command.render_usage()
}

fn escaped(value: &ContextValue) -> ContextValue {
    let line = |text: &String| escape::line(text).into_owned();
    // A tip quotes the argument. It keeps its colours unless there is something to escape.
    let tip = |tip: &StyledStr| {
        let plain = tip.to_string();
        match escape::line(&plain) {
            Cow::Borrowed(_) => tip.clone(),
            Cow::Owned(escaped) => StyledStr::from(escaped),
        }
    };
    match value {
        ContextValue::String(text) => ContextValue::String(line(text)),
        ContextValue::Strings(texts) => ContextValue::Strings(texts.iter().map(line).collect()),
        ContextValue::StyledStrs(tips) => ContextValue::StyledStrs(tips.iter().map(tip).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_usage_line_does_not_ask_for_flags_that_are_not_needed() {
        for (arguments, usage) in [
            (&["run", "--concurrency", "5"][..], "Usage: taskbay run [OPTIONS] [TASKS_DIR]"),
            (&["run", "--once", "--schema-only"], "Usage: taskbay run [OPTIONS] [TASKS_DIR]"),
            (&["jobs", "complete", "--jsn", "5"], "Usage: taskbay jobs complete [OPTIONS] [ID]..."),
        ] {
            let mut error = Cli::try_parse_from([&["taskbay"], arguments].concat()).expect_err("it is wrong");
            show_whole_usage(&mut error);
            let said = error.render().to_string();
            assert!(said.contains(usage), "{said}");
        }
    }
}
