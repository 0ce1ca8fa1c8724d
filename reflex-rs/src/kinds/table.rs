//! The compiled schemas of all kinds.

use std::collections::{BTreeMap, HashMap};

use contracts::events::RefusalReason;
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::near_miss::nearest;
use super::violation::{type_of, Violation};

/// The field that stands for every kind without a field of its own, and for tasks without a kind. It exists if a model plans
/// these.
const ANY_OTHER: &str = "*";
/// How many violations are reported.
const MAX_VIOLATIONS: usize = 20;

/// Why what is published cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the schema of kind {kind} cannot be used: {cause}")]
pub struct KindsError {
    kind: String,
    cause: String,
}

/// Which tasks can be planned.
#[derive(Debug)]
pub struct Table {
    /// Sorted by name.
    kinds: BTreeMap<String, Kind>,
    /// Whether a model plans tasks of other kinds and of none.
    any_other: bool,
}

#[derive(Debug)]
struct Kind {
    schema: Value,
    validator: Validator,
}

impl Table {
    /// Compiles the schemas: JSON Schema as JSON text, by kind.
    pub fn compile(schemas: HashMap<String, String>) -> Result<Self, KindsError> {
        let any_other = schemas.contains_key(ANY_OTHER);
        let kinds = schemas.into_iter().filter(|(kind, _)| kind != ANY_OTHER);
        let kinds = kinds.map(|(kind, text)| match Kind::compile(&text) {
            Ok(compiled) => Ok((kind, compiled)),
            Err(cause) => Err(KindsError { kind, cause }),
        });
        Ok(Self {
            kinds: kinds.collect::<Result<_, _>>()?,
            any_other,
        })
    }

    /// The number of kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Whether a task of this kind with this input, an object, can be planned.
    #[must_use]
    pub fn admits(&self, kind: Option<&str>, input: &Value) -> bool {
        match kind.and_then(|kind| self.kinds.get(kind)) {
            Some(kind) => kind.validator.is_valid(input),
            None => self.any_other,
        }
    }

    /// Returns why a task cannot be planned, and the rules that it breaks; `None` if it can.
    #[must_use]
    pub fn violations(
        &self,
        kind: Option<&str>,
        input: &Value,
    ) -> Option<(RefusalReason, Vec<Violation>)> {
        let Some(known) = kind.and_then(|kind| self.kinds.get(kind)) else {
            return (!self.any_other).then(|| self.no_recipe(kind));
        };
        let found: Vec<Violation> = known
            .validator
            .iter_errors(input)
            .flat_map(|error| Violation::of_error(&error, &known.schema))
            .take(MAX_VIOLATIONS)
            .collect();
        (!found.is_empty()).then_some((RefusalReason::InvalidInput, found))
    }

    /// There is no recipe, and no model plans instead.
    fn no_recipe(&self, kind: Option<&str>) -> (RefusalReason, Vec<Violation>) {
        let names: Vec<&str> = self.kinds.keys().map(String::as_str).collect();
        let expected = Value::from(names.clone());
        let (reason, violation) = match kind {
            None => (
                RefusalReason::NeedsModel,
                Violation::new("/kind", "required", expected, "missing"),
            ),
            Some(kind) => (
                RefusalReason::UnknownKind,
                Violation {
                    did_you_mean: nearest(kind, names.into_iter()),
                    ..Violation::new("/kind", "enum", expected, "string")
                },
            ),
        };
        (reason, vec![violation])
    }
}

impl Kind {
    fn compile(text: &str) -> Result<Self, String> {
        let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if !matches!(type_of(&schema), "object" | "boolean") {
            return Err("must be an object or a boolean".to_owned());
        }
        let validator = jsonschema::options()
            // A reference to another document is refused and never fetched.
            .offline()
            // Linear time, whatever the text is.
            .with_pattern_options(PatternOptions::regex())
            .build(&schema)
            .map_err(|error| error.to_string())?;
        Ok(Self { schema, validator })
    }
}
