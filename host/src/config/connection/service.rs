//! Service files: named sections with the parameters of a connection.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{ConnectionError, parameters};

/// The default of `PGSYSCONFDIR` in Debian's libpq.
const SYSTEM_FOLDER: &str = "/etc/postgresql-common";

/// Parameters by name.
type Parameters = Vec<(&'static str, String)>;

/// The parameters of a service, with their file.
pub(super) fn read(
    service: &str,
    file: Option<&str>,
    variable: impl Fn(&'static str) -> Option<String>,
) -> Result<(PathBuf, Parameters), ConnectionError> {
    let own = file.map(PathBuf::from).or_else(|| Some(Path::new(&variable("HOME")?).join(".pg_service.conf")));
    let system = Path::new(variable("PGSYSCONFDIR").as_deref().unwrap_or(SYSTEM_FOLDER)).join("pg_service.conf");
    let mut files = Vec::new();
    for path in own.into_iter().chain([system]) {
        let wrong = |reason: String| ConnectionError::ServiceFile { path: path.clone(), reason };
        match fs::read_to_string(&path) {
            Ok(text) => {
                if let Some(found) = find(&text, service).map_err(wrong)? {
                    return Ok((path, found));
                }
                files.push(path.display().to_string());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                files.push(format!("{} (which is not there)", path.display()));
            }
            Err(error) => return Err(wrong(error.to_string())),
        }
    }
    Err(ConnectionError::NoService { service: service.to_owned(), files: files.join(" and ") })
}

/// The first section with this name, if there is one. Errors never repeat values.
fn find(text: &str, service: &str) -> Result<Option<Parameters>, String> {
    let mut found: Option<Parameters> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            if found.is_some() {
                break;
            }
            found = (name == service).then(Vec::new);
            continue;
        }
        let Some(values) = &mut found else { continue };
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {number} is not of the form parameter=value"));
        };
        if line.starts_with("ldap") {
            return Err(format!("line {number} refers to LDAP, which is not supported"));
        }
        let Some(parameter) = parameters::find(name.trim()) else {
            let meant = parameters::nearest(name).map(|known| format!(" (did you mean {known}?)")).unwrap_or_default();
            return Err(format!("the parameter in line {number} is unknown{meant}"));
        };
        if matches!(parameter.name, "service" | "servicefile") {
            return Err(format!("line {number} refers to a service, which a service cannot do"));
        }
        // As in a connection string, a later value replaces an earlier one.
        values.retain(|(name, _)| *name != parameter.name);
        values.push((parameter.name, value.trim().to_owned()));
    }
    Ok(found)
}
