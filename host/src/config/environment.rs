//! The environment as a layer of settings.

use thiserror::Error;

use super::{
    Layer, Origin, PLUGIN_SETTINGS, SETTINGS, nearest,
    setting::{Setting, Variable},
};

/// A variable with an unusable value.
#[derive(Debug, Error)]
#[error("{variable} is {value:?}: {reason}; it sets {setting}")]
pub struct WrongVariable {
    variable: &'static str,
    value: String,
    reason: String,
    setting: String,
}

/// Variables of Taskbay that are not settings.
const OTHERS: [&str; 1] = ["TASKBAY_TEST_DATABASE_URL"];

impl Layer {
    /// The environment's layer, without the `PG*` variables, which complete a connection instead of replacing it. An empty
    /// variable counts as not set.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, WrongVariable> {
        let mut layer = Self::default();
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        for setting in SETTINGS.iter() {
            read(setting, set, &mut layer, |layer| layer)?;
        }
        for setting in PLUGIN_SETTINGS {
            read(setting, set, &mut layer, |layer| &mut layer.all_plugins)?;
        }
        Ok(layer)
    }
}

fn read<L, S>(
    setting: &Setting<L, S>,
    set: impl Fn(&str) -> Option<String>,
    layer: &mut Layer,
    part: fn(&mut Layer) -> &mut L,
) -> Result<(), WrongVariable> {
    let found = setting.variables.iter().find_map(|variable| set(variable.name).map(|value| (variable, value)));
    let Some((Variable { name, means }, value)) = found else { return Ok(()) };
    let value = means.map_or(value, str::to_owned);
    let read = setting.kind.read_text(&value).map_err(|reason| WrongVariable {
        variable: name,
        value,
        reason,
        setting: setting.path(),
    })?;
    (setting.field.set)(part(layer), read);
    layer.note(setting.path(), Origin::Variable((*name).to_owned()));
    Ok(())
}

/// The variables that look like settings of this program but are unknown, each with the nearest known name.
pub fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<(String, Option<&'static str>)> {
    let known: Vec<&'static str> = SETTINGS
        .iter()
        .flat_map(|setting| setting.variables)
        .chain(PLUGIN_SETTINGS.iter().flat_map(|setting| setting.variables))
        .map(|variable| variable.name)
        .filter(|name| name.starts_with("TASKBAY_"))
        .collect();
    // The common prefix would make all names similar.
    let ends: Vec<String> = known.iter().map(|name| name["TASKBAY_".len()..].to_lowercase()).collect();
    let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
    names
        .filter(|name| !known.contains(&name.as_str()) && !OTHERS.contains(&name.as_str()))
        .filter_map(|name| {
            let near = nearest(name.strip_prefix("TASKBAY_")?, &ends);
            let place = ends.iter().position(|end| Some(*end) == near);
            let near = place.map(|place| known[place]);
            Some((name, near))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plugin::Isolation;

    fn read(variables: &[(&str, &str)]) -> Result<Layer, String> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Layer::from_environment(variable).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_variable_is_not_set_and_ours_comes_before_another_programs() {
        let layer = read(&[
            ("DATABASE_URL", ""),
            ("GRAPHILE_WORKER_SCHEMA", "theirs"),
            ("TASKBAY_SCHEMA", "ours"),
            ("GRAPHILE_WORKER_DEBUG", "1"),
            ("NO_LOG_SUCCESS", "1"),
        ])
        .unwrap();
        assert_eq!((layer.connection.as_deref(), layer.schema.as_deref()), (None, Some("ours")));
        assert_eq!((layer.log_filter.as_deref(), layer.log_success), (Some("debug"), Some(false)));
        assert_eq!(layer.origin("database.schema"), Origin::Variable("TASKBAY_SCHEMA".into()));
    }

    #[test]
    fn values_are_read_by_their_kind() {
        let layer = read(&[
            ("TASKBAY_POLL_INTERVAL", "500"),
            ("TASKBAY_FORBIDDEN_FLAGS", "a, b"),
            ("TASKBAY_LISTEN", "false"),
            ("TASKBAY_ISOLATION", "in-process"),
        ])
        .unwrap();
        assert_eq!(layer.poll_interval, Some(Duration::from_millis(500)));
        assert_eq!(layer.forbidden_flags, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!((layer.listen, layer.all_plugins.isolation), (Some(false), Some(Isolation::InProcess)));
        for (name, value, part) in [
            ("TASKBAY_CONCURRENCY", "many", "TASKBAY_CONCURRENCY is \"many\": it must be a whole number from 1"),
            ("TASKBAY_TIMEOUT", "0s", "it sets plugins.NAME.timeout"),
            ("TASKBAY_CLOCK", "wall", "database or process"),
        ] {
            let refused = read(&[(name, value)]).unwrap_err();
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn a_mistyped_variable_is_told_with_the_nearest() {
        let names = ["TASKBAY_CONCURENCY", "TASKBAY_SCHEMA", "TASKBAY_TEST_DATABASE_URL", "HOME", "TASKBAY_XYZZY"];
        assert_eq!(
            unknown_variables(names.into_iter().map(str::to_owned)),
            [("TASKBAY_CONCURENCY".to_owned(), Some("TASKBAY_CONCURRENCY")), ("TASKBAY_XYZZY".to_owned(), None)]
        );
    }
}
