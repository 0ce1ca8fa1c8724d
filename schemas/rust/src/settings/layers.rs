//! The places that settings come from, one laid over the other. A key that the default file does not have is refused.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::SettingsError;

const PREFIX: &str = "OCTOLLM_";
const CONFIG: &str = "OCTOLLM_CONFIG";
/// Known to the Python side only, but set for all processes.
const OTHERS: [&str; 2] = [CONFIG, "OCTOLLM_DEBUG"];
/// Secrets that no settings file may hold: such files are shared and committed.
const ENVIRONMENT_ONLY: [(&str, &str); 2] = [("api", "secret"), ("api", "key")];

/// Lays the file that is named by `OCTOLLM_CONFIG` over the defaults, and the environment over both.
pub(super) fn merge(
    table: &mut Table,
    variables: &BTreeMap<String, String>,
) -> Result<(), SettingsError> {
    if let Some(path) = variables.get(CONFIG).filter(|path| !path.is_empty()) {
        merge_file(table, Path::new(path))?;
    }
    merge_environment(table, variables)
}

fn merge_file(table: &mut Table, path: &Path) -> Result<(), SettingsError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        SettingsError(format!(
            "the settings file {shown} cannot be read ({error}); correct {CONFIG} or unset it"
        ))
    })?;
    let file: Table = text.parse().map_err(|error: toml::de::Error| {
        SettingsError(format!(
            "the settings file {shown} is not valid TOML: {}",
            error.message()
        ))
    })?;
    for (section, content) in file {
        let Some(Value::Table(known)) = table.get_mut(&section) else {
            return Err(SettingsError(format!(
                "unknown section [{section}] in {shown}; remove or correct it"
            )));
        };
        let Value::Table(content) = content else {
            return Err(SettingsError(format!(
                "{section} in {shown} must be a section: write [{section}]"
            )));
        };
        for (key, value) in content {
            let Some(old) = known.get_mut(&key) else {
                return Err(SettingsError(format!(
                    "unknown key {section}.{key} in {shown}; remove or correct it"
                )));
            };
            if ENVIRONMENT_ONLY.contains(&(section.as_str(), key.as_str())) {
                let variable = format!("{PREFIX}{section}_{key}").to_uppercase();
                return Err(SettingsError(format!(
                    "{section}.{key} in {shown} is refused: set {variable} in the environment"
                )));
            }
            let widened = matches!((&*old, &value), (Value::Float(_), Value::Integer(_)));
            if !old.same_type(&value) && !widened {
                return Err(SettingsError(format!(
                    "{section}.{key} in {shown} must be a {}",
                    old.type_str()
                )));
            }
            *old = value;
        }
    }
    Ok(())
}

fn merge_environment(
    table: &mut Table,
    variables: &BTreeMap<String, String>,
) -> Result<(), SettingsError> {
    for (name, text) in variables {
        // Upper case on both sides: the Python library reads variables in any case.
        let upper = name.to_ascii_uppercase();
        let Some(rest) = upper.strip_prefix(PREFIX) else {
            continue;
        };
        if OTHERS.contains(&upper.as_str()) {
            continue;
        }
        let found = rest.split_once('_').and_then(|(section, key)| {
            table
                .get_mut(&section.to_ascii_lowercase())?
                .as_table_mut()?
                .get_mut(&key.to_ascii_lowercase())
        });
        let Some(old) = found else {
            return Err(SettingsError(format!(
                "unknown environment variable {name}; unset or correct it"
            )));
        };
        let refused = || SettingsError(format!("{name} is refused: must be a {}", old.type_str()));
        let value = match old {
            Value::Integer(_) => Value::Integer(text.trim().parse().map_err(|_| refused())?),
            Value::Float(_) => Value::Float(text.trim().parse().map_err(|_| refused())?),
            Value::Boolean(_) => Value::Boolean(
                text.trim()
                    .to_ascii_lowercase()
                    .parse()
                    .map_err(|_| refused())?,
            ),
            _ => Value::String(text.clone()),
        };
        *old = value;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::settings::load_from;

    #[test]
    fn a_file_holds_no_secret() {
        let file = std::env::temp_dir().join(format!("octollm-secret-{}.toml", std::process::id()));
        std::fs::write(
            &file,
            format!("[api]\nsecret = \"{}\"\n", "canary".repeat(6)),
        )
        .unwrap();
        let variable = ("OCTOLLM_CONFIG".to_owned(), file.display().to_string());
        let refused = load_from(&BTreeMap::from([variable]));
        std::fs::remove_file(&file).unwrap();
        let error = refused.map(drop).unwrap_err().to_string();
        assert!(
            error.contains("api.secret") && error.contains("set OCTOLLM_API_SECRET"),
            "{error}"
        );
        assert!(!error.contains("canary"), "{error}");
    }
}
