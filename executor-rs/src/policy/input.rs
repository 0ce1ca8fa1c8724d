//! Reads a step's input: a closed object, every value within its bounds. Whatever else it is, is refused for good.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use contracts::events::from_object;
use contracts::events::Object;
use serde::Deserialize;

use crate::sandbox::spec::Limits;
use crate::sandbox::{Job, Language};

const FILES: usize = 64;
const PATH_BYTES: usize = 512;
const ARGS: usize = 256;
/// Of one argument; the kernel takes 128 KiB.
const ARG_BYTES: usize = 64 * 1024;
/// Of all together; the kernel takes a quarter of the stack's limit, which is 2 MiB as a rule.
const ALL_ARGS_BYTES: usize = 1024 * 1024;
const DEFAULTS: Limits = Limits {
    wall_s: 10,
    cpu_s: 10,
    memory_mb: 256,
    processes: 32,
    output_bytes: 16 * 1024,
};
const MEMORY_MB: u64 = 2048;
const PROCESSES: u64 = 256;
/// Two streams of this size and the rest still fit the output's own bound.
const OUTPUT_BYTES: u64 = 24 * 1024;

/// An input that can never be run; names the field, never quotes its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidInput {
    pub field: String,
    pub message: String,
}

impl InvalidInput {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        let field = field.into();
        Self {
            field: if field.is_empty() {
                "input".to_owned()
            } else {
                field
            },
            message: message.into(),
        }
    }
}

/// A checked input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInput {
    pub job: Job,
    /// Standard output is JSON and becomes the result.
    pub parse_json: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    language: Language,
    code: String,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    stdin: Option<String>,
    #[serde(default, deserialize_with = "present")]
    parse: Option<Parse>,
    #[serde(default, deserialize_with = "present")]
    limits: Option<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Parse {
    Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    wall_s: Option<u64>,
    cpu_s: Option<u64>,
    memory_mb: Option<u64>,
    processes: Option<u64>,
    output_bytes: Option<u64>,
}

/// Absent is `None`, null is refused.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// `longest_s`: what the topic and the step's own message allow.
pub fn read(input: Object, longest_s: u64) -> Result<StepInput, InvalidInput> {
    let raw: Raw =
        from_object(input).map_err(|error| InvalidInput::new(error.field, error.message))?;
    plain("code", &raw.code)?;
    if raw.files.len() > FILES {
        return Err(InvalidInput::new(
            "files",
            format!("must be at most {FILES}"),
        ));
    }
    for (path, content) in &raw.files {
        check_path(path)?;
        plain("files", content)?;
        if path == raw.language.main_file() {
            let why = format!("{path} is the file that the code becomes; rename yours");
            return Err(InvalidInput::new("files", why));
        }
    }
    check_tree(&raw.files)?;
    if raw.args.len() > ARGS || raw.args.iter().any(|arg| arg.len() > ARG_BYTES) {
        return Err(InvalidInput::new(
            "args",
            format!("must be at most {ARGS} texts of {ARG_BYTES} bytes"),
        ));
    }
    if raw.args.iter().map(String::len).sum::<usize>() > ALL_ARGS_BYTES {
        return Err(InvalidInput::new(
            "args",
            format!("must be at most {ALL_ARGS_BYTES} bytes together"),
        ));
    }
    raw.args.iter().try_for_each(|arg| plain("args", arg))?;
    Ok(StepInput {
        parse_json: matches!(raw.parse, Some(Parse::Json)),
        job: Job {
            language: raw.language,
            code: raw.code,
            files: raw.files,
            args: raw.args,
            stdin: raw.stdin,
            limits: limits(raw.limits, longest_s)?,
        },
    })
}

fn plain(field: &str, text: &str) -> Result<(), InvalidInput> {
    if text.contains('\0') {
        return Err(InvalidInput::new(field, "must not hold a NUL character"));
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), InvalidInput> {
    let refused = |why: &str| Err(InvalidInput::new("files", format!("a path {why}")));
    if path.contains('\0') {
        return refused("must not hold a NUL character");
    }
    if path.is_empty() || path.len() > PATH_BYTES || path.split('/').any(|part| part.len() > 255) {
        return refused("must have 1 to 512 bytes, its parts at most 255");
    }
    // Written exactly as it will lie there, so that no two paths mean one file.
    let exact = path
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    if !exact
        || !Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
    {
        return refused("must be relative, without ., .. or empty parts");
    }
    Ok(())
}

/// No path may be a file and another's folder at once; `tmp` and the code's file are taken.
fn check_tree(files: &BTreeMap<String, String>) -> Result<(), InvalidInput> {
    for path in files.keys() {
        if path == "tmp" {
            return Err(InvalidInput::new(
                "files",
                "tmp is the step's temporary folder; rename yours",
            ));
        }
        let mut parent = Path::new(path).parent();
        while let Some(folder) = parent
            .and_then(Path::to_str)
            .filter(|folder| !folder.is_empty())
        {
            if files.contains_key(folder) || folder == "main.py" || folder == "main.sh" {
                return Err(InvalidInput::new(
                    "files",
                    format!("{folder} is both a file and a folder; rename one"),
                ));
            }
            parent = Path::new(folder).parent();
        }
    }
    Ok(())
}

fn limits(raw: Option<Object>, longest_s: u64) -> Result<Limits, InvalidInput> {
    let mut limits = Limits {
        wall_s: DEFAULTS.wall_s.min(longest_s),
        cpu_s: DEFAULTS.cpu_s.min(longest_s),
        ..DEFAULTS
    };
    let Some(raw) = raw else { return Ok(limits) };
    let raw: RawLimits = from_object(raw)
        .map_err(|error| InvalidInput::new(format!("limits.{}", error.field), error.message))?;
    for (name, value, limit, least, most) in [
        ("wall_s", raw.wall_s, &mut limits.wall_s, 1, longest_s),
        ("cpu_s", raw.cpu_s, &mut limits.cpu_s, 1, longest_s),
        (
            "memory_mb",
            raw.memory_mb,
            &mut limits.memory_mb,
            16,
            MEMORY_MB,
        ),
        (
            "processes",
            raw.processes,
            &mut limits.processes,
            1,
            PROCESSES,
        ),
        (
            "output_bytes",
            raw.output_bytes,
            &mut limits.output_bytes,
            0,
            OUTPUT_BYTES,
        ),
    ] {
        let Some(value) = value else { continue };
        if !(least..=most).contains(&value) {
            return Err(InvalidInput::new(
                format!("limits.{name}"),
                format!("must be from {least} to {most}"),
            ));
        }
        *limit = value;
    }
    Ok(limits)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a broken assumption ends the test
mod tests {
    use super::{read, InvalidInput, Language, StepInput};
    use serde_json::{json, Value};

    fn input(value: Value) -> Result<StepInput, InvalidInput> {
        let Value::Object(object) = value else {
            unreachable!("tests give objects")
        };
        read(object, 300)
    }

    fn refused(value: Value) -> String {
        input(value).unwrap_err().field
    }

    #[test]
    fn the_smallest_input_gets_the_defaults() {
        let found = input(json!({"language": "python", "code": "1"})).unwrap();
        let limits = found.job.limits;
        assert_eq!(found.job.language, Language::Python);
        assert_eq!(
            (limits.wall_s, limits.cpu_s, limits.memory_mb),
            (10, 10, 256)
        );
        assert_eq!(
            (limits.processes, limits.output_bytes, found.parse_json),
            (32, 16384, false)
        );
    }

    #[test]
    fn everything_given_is_kept() {
        let found = input(json!({
            "language": "shell", "code": "x", "files": {"a/b.py": "1", "a/c.py": "2"}, "args": ["-v"], "stdin": "in",
            "parse": "json", "limits": {"wall_s": 300, "memory_mb": 2048, "processes": 256, "output_bytes": 24576},
        }))
        .unwrap();
        assert_eq!(
            (
                found.job.files.len(),
                found.job.args.len(),
                found.parse_json
            ),
            (2, 1, true)
        );
        assert_eq!((found.job.limits.wall_s, found.job.limits.cpu_s), (300, 10));
    }

    #[test]
    fn a_shorter_allowance_shortens_the_defaults() {
        let Value::Object(object) = json!({"language": "python", "code": ""}) else {
            unreachable!()
        };
        assert_eq!(read(object, 3).unwrap().job.limits.wall_s, 3);
    }

    #[test]
    fn each_fault_names_its_field() {
        let ok = json!({"language": "python", "code": ""});
        let with = |name: &str, value: Value| {
            let mut changed = ok.clone();
            changed[name] = value;
            changed
        };
        for (value, field) in [
            (json!({"code": ""}), "language"),
            (json!({"language": "python"}), "code"),
            (with("surprise", json!(1)), "surprise"),
            (with("language", json!("perl")), "language"),
            (with("code", json!(5)), "code"),
            (with("code", json!("a\0b")), "code"),
            (with("stdin", json!(null)), "stdin"),
            (with("parse", json!("xml")), "parse"),
            (with("args", json!(["a\0"])), "args"),
            (with("args", json!(vec!["a".repeat(65_536); 17])), "args"),
            (with("limits", json!({"wall_s": 301})), "limits.wall_s"),
            (with("limits", json!({"wall_s": 0})), "limits.wall_s"),
            (
                with("limits", json!({"memory_mb": 2049})),
                "limits.memory_mb",
            ),
            (
                with("limits", json!({"processes": 257})),
                "limits.processes",
            ),
            (
                with("limits", json!({"output_bytes": 24577})),
                "limits.output_bytes",
            ),
            (with("limits", json!({"cpus": 1})), "limits.cpus"),
        ] {
            assert_eq!(refused(value.clone()), field, "{value}");
        }
    }

    #[test]
    fn paths_stay_inside_and_mean_one_file_each() {
        let long = "a".repeat(256);
        for path in [
            "/etc/x",
            "../x",
            "a/../x",
            "./x",
            "a//b",
            "a/",
            "",
            "a\0b",
            "main.py",
            "tmp",
            "main.py/x",
            &long,
        ] {
            assert_eq!(
                refused(json!({"language": "python", "code": "", "files": {path: ""}})),
                "files",
                "{path}"
            );
        }
        let both = json!({"language": "python", "code": "", "files": {"a": "", "a/b": ""}});
        assert_eq!(refused(both), "files");
        let many: serde_json::Map<_, _> = (0..65)
            .map(|number| (format!("f{number}"), json!("")))
            .collect();
        assert_eq!(
            refused(json!({"language": "python", "code": "", "files": many})),
            "files"
        );
    }

    #[test]
    fn a_fault_never_quotes_the_value() {
        let error = input(json!({"language": "python", "code": {"secret": 1}})).unwrap_err();
        assert!(!error.message.contains("secret"), "{error}");
    }
}
