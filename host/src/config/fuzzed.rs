//! The entry point of the fuzz target of the settings file. Compiled only for fuzzing.

use std::{path::Path, time::Instant};

use super::{
    Layer, PLUGIN_SETTINGS, PluginLayer, Purpose, SETTINGS, Value, check, database_settings, effective_settings,
    file::parse, section::Source,
};

/// Reads a settings file, and uses it as far as possible without side effects. The settings can be written as text and read
/// back unchanged.
pub fn settings_file(text: &str) {
    let source = Source { path: Path::new("taskbay.toml"), text };
    let layer = match parse(source) {
        Ok(layer) => layer,
        Err(refused) => return assert_has_place(&refused.to_string(), text),
    };
    let again = parse(Source { text: &printed(&layer), ..source }).expect("the written text is valid");
    for setting in SETTINGS.iter().filter(|setting| setting.section != "database") {
        assert_eq!((setting.field.get)(&again), (setting.field.get)(&layer), "{}", setting.path());
    }
    assert_same(&again.plugin_defaults, &layer.plugin_defaults);
    assert!(again.plugins.keys().eq(layer.plugins.keys()));
    again.plugins.values().zip(layer.plugins.values()).for_each(|(again, plugin)| assert_same(again, plugin));

    let Ok(database) = database_settings(&layer, |_| None) else { return };
    let settings = layer.clone().into_settings(database, Purpose::Production);
    for setting in effective_settings(&layer, &settings, true, |_| None) {
        if let Some(Value::Time(time)) = setting.value {
            assert!(Instant::now().checked_add(time.mul_f64(2.0)).is_some(), "it can be waited for: {time:?}");
        }
        let _ = setting.value.map(|value| value.to_string());
    }
    if let Err(refused) = check(&layer, &settings) {
        assert!(!refused.to_string().is_empty());
    }
}

/// A refusal names an existing line.
fn assert_has_place(refused: &str, text: &str) {
    let line = refused.strip_prefix("taskbay.toml, line ").and_then(|rest| rest.split(':').next());
    let line: Option<usize> = line.and_then(|line| line.parse().ok());
    assert!(line.is_some_and(|line| (1..=text.matches('\n').count() + 1).contains(&line)), "{refused}");
}

fn assert_same(one: &PluginLayer, other: &PluginLayer) {
    for setting in PLUGIN_SETTINGS {
        assert_eq!((setting.field.get)(one), (setting.field.get)(other), "{}", setting.key);
    }
}

/// A file with the same settings, except for the database.
fn printed(layer: &Layer) -> String {
    let mut lines = Vec::new();
    let mut sections: Vec<&str> = SETTINGS.iter().map(|setting| setting.section).collect();
    sections.dedup();
    for section in sections.into_iter().filter(|section| *section != "database") {
        lines.push(format!("[{section}]"));
        let settings = SETTINGS.iter().filter(|setting| setting.section == section);
        lines.extend(settings.filter_map(|setting| line(setting.key, (setting.field.get)(layer))));
    }
    let default = "default".to_owned();
    for (name, plugin) in std::iter::once((&default, &layer.plugin_defaults)).chain(&layer.plugins) {
        lines.push(format!("[plugins.{}]", serde_json::Value::from(name.as_str())));
        lines.extend(PLUGIN_SETTINGS.iter().filter_map(|setting| line(setting.key, (setting.field.get)(plugin))));
    }
    lines.join("\n")
}

fn line(key: &str, value: Option<Value>) -> Option<String> {
    value.map(|value| format!("{key} = {value}"))
}
