//! Checks a step's input: a closed object with every value within its bounds. Anything else fails permanently.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use contracts::events::from_object;
use contracts::events::Object;
use serde::Deserialize;

use super::kinds::{self, StepKind};
use super::limits;
use crate::job::Limits;

const MAX_FILES: usize = 64;
const MAX_PATH_BYTES: usize = 512;
const MAX_ARGS: usize = 256;
/// Of one argument; the kernel accepts 128 KiB.
const MAX_ARG_BYTES: usize = 64 * 1024;
/// Of all together; the kernel accepts a quarter of the stack's limit, which is usually 2 MiB.
const MAX_ALL_ARGS_BYTES: usize = 1024 * 1024;

/// An input that can never be run; names the field, never quotes its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidInput {
    pub field: String,
    pub message: String,
}

impl InvalidInput {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
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
#[derive(Debug, Clone)]
pub struct StepInput {
    pub kind: &'static dyn StepKind,
    pub code: String,
    /// By relative path, next to the code.
    pub files: BTreeMap<String, String>,
    pub args: Vec<String>,
    pub stdin: Option<String>,
    pub limits: Limits,
    /// Standard output is JSON and becomes the result.
    pub parse_json: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    language: String,
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

/// Absent is `None`, null is refused.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// Check a step's input. `max_s`: the longest time that the topic and the step's message allow.
pub fn parse(input: Object, max_s: u64) -> Result<StepInput, InvalidInput> {
    let raw: Raw =
        from_object(input).map_err(|error| InvalidInput::new(error.field, error.message))?;
    let kind = kinds::find(&raw.language)
        .ok_or_else(|| InvalidInput::new("language", format!("must be {}", kinds::names())))?;
    check_text("code", &raw.code)?;
    check_files(&raw.files, kind)?;
    check_args(&raw.args)?;
    Ok(StepInput {
        kind,
        code: raw.code,
        files: raw.files,
        args: raw.args,
        stdin: raw.stdin,
        limits: limits::parse(raw.limits, max_s)?,
        parse_json: matches!(raw.parse, Some(Parse::Json)),
    })
}

fn check_files(files: &BTreeMap<String, String>, kind: &dyn StepKind) -> Result<(), InvalidInput> {
    if files.len() > MAX_FILES {
        let message = format!("must be at most {MAX_FILES}");
        return Err(InvalidInput::new("files", message));
    }
    for (path, content) in files {
        check_path(path)?;
        check_text("files", content)?;
        if path == kind.main_file() {
            let message = format!("{path} is the file that the code is written to; rename yours");
            return Err(InvalidInput::new("files", message));
        }
    }
    check_tree(files)
}

fn check_args(args: &[String]) -> Result<(), InvalidInput> {
    if args.len() > MAX_ARGS || args.iter().any(|arg| arg.len() > MAX_ARG_BYTES) {
        let message = format!("must be at most {MAX_ARGS} texts of {MAX_ARG_BYTES} bytes");
        return Err(InvalidInput::new("args", message));
    }
    if args.iter().map(String::len).sum::<usize>() > MAX_ALL_ARGS_BYTES {
        let message = format!("must be at most {MAX_ALL_ARGS_BYTES} bytes together");
        return Err(InvalidInput::new("args", message));
    }
    args.iter().try_for_each(|arg| check_text("args", arg))
}

fn check_text(field: &str, text: &str) -> Result<(), InvalidInput> {
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
    if path.is_empty()
        || path.len() > MAX_PATH_BYTES
        || path.split('/').any(|part| part.len() > 255)
    {
        return refused("must have 1 to 512 bytes, its parts at most 255");
    }
    // In its normal form, so that no two paths mean one file.
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

/// No path may be a file and another's folder at once; `tmp` and the main file are taken.
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
            let main_file = kinds::KINDS.iter().any(|kind| kind.main_file() == folder);
            if files.contains_key(folder) || main_file {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a broken assumption ends the test
mod tests {
    use super::{parse, InvalidInput, StepInput};
    use serde_json::{json, Value};

    fn input(value: Value) -> Result<StepInput, InvalidInput> {
        let Value::Object(object) = value else {
            unreachable!("tests give objects")
        };
        parse(object, 300)
    }

    fn refused(value: Value) -> String {
        input(value).unwrap_err().field
    }

    #[test]
    fn the_smallest_input_gets_the_defaults() {
        let found = input(json!({"language": "python", "code": "1"})).unwrap();
        let limits = found.limits;
        assert_eq!(found.kind.name(), "python");
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
            (found.files.len(), found.args.len(), found.parse_json),
            (2, 1, true)
        );
        assert_eq!((found.limits.wall_s, found.limits.cpu_s), (300, 10));
    }

    #[test]
    fn a_shorter_allowance_shortens_the_defaults() {
        let Value::Object(object) = json!({"language": "python", "code": ""}) else {
            unreachable!()
        };
        assert_eq!(parse(object, 3).unwrap().limits.wall_s, 3);
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
