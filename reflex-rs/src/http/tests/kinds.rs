//! Submissions are checked against the published kinds before anything is stored.

use std::collections::HashMap;

use serde_json::{json, Value};

use super::Api;
use crate::kinds::Table;

fn publish(api: &Api, any_other: bool) {
    let note = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["text"],
        "properties": {
            "text": {"type": "string", "minLength": 1, "maxLength": 20},
            "count": {"type": "integer", "minimum": 1},
            "media": {"enum": ["markdown", "code"]},
            "tags": {"type": "array", "maxItems": 2, "items": {"type": "object", "additionalProperties": false, "properties": {"name": {}}}},
        },
    });
    let mut schemas = HashMap::from([
        ("note".to_owned(), note.to_string()),
        ("open".to_owned(), json!({"type": "object"}).to_string()),
    ]);
    if any_other {
        schemas.insert("*".to_owned(), "true".to_owned());
    }
    api.kinds.replace(Some(Table::compile(schemas).unwrap()));
}

async fn submit(api: &Api, body: Value) -> (u16, Value) {
    let reply = api.submit(&body.to_string(), &[]).await;
    (reply.status.as_u16(), reply.json())
}

#[tokio::test]
async fn before_anything_is_published_the_orchestrator_decides() {
    let api = Api::new();
    let body = json!({"goal": "x", "kind": "unheard-of", "input": {"a": 1}});
    assert_eq!(submit(&api, body.clone()).await.0, 202);
    publish(&api, false);
    assert_eq!(submit(&api, body.clone()).await.0, 422);
    api.kinds.replace(None);
    assert_eq!(submit(&api, body).await.0, 202);
}

#[tokio::test]
async fn a_kind_without_a_recipe_is_refused_unless_a_model_plans_it() {
    let api = Api::new();
    publish(&api, false);
    let (status, problem) = submit(&api, json!({"goal": "x", "kind": "notes"})).await;
    assert_eq!(
        (status, &problem["type"]),
        (422, &json!("urn:octollm:problem:unknown_kind"))
    );
    assert_eq!(problem["field"], "kind");
    assert_eq!(
        problem["errors"],
        json!([{
            "pointer": "/kind", "rule": "enum", "expected": ["note", "open"], "got_type": "string", "did_you_mean": "note",
        }])
    );
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .ends_with("did you mean note?"),
        "{problem}"
    );
    let (status, problem) = submit(&api, json!({"goal": "x"})).await;
    assert_eq!(
        (status, &problem["type"]),
        (422, &json!("urn:octollm:problem:needs_model"))
    );
    assert_eq!(problem["errors"][0]["got_type"], "missing");
    assert_eq!(
        problem["detail"],
        "kind is missing; no model is configured to plan a task without one, so send one of note, open"
    );
    assert!(api.store.tasks().is_empty());
    assert_eq!(api.submissions("unknown_kind"), 1);
    publish(&api, true);
    for body in [
        json!({"goal": "x"}),
        json!({"goal": "x", "kind": "notes", "input": {"any": 1}}),
    ] {
        assert_eq!(submit(&api, body).await.0, 202);
    }
    assert_eq!(
        submit(&api, json!({"goal": "x", "kind": "note"})).await.0,
        422
    );
}

#[tokio::test]
async fn every_rule_that_an_input_breaks_is_reported() {
    let api = Api::new();
    publish(&api, false);
    let table = [
        (json!({"text": "t"}), None),
        (
            json!({"text": "t", "count": 1.0, "media": "code", "tags": [{}, {"name": 1}]}),
            None,
        ),
        (
            json!({}),
            Some(("/input/text", "required", json!("text"), "missing", None)),
        ),
        (
            json!({"text": 5}),
            Some(("/input/text", "type", json!("string"), "integer", None)),
        ),
        (
            json!({"text": ""}),
            Some(("/input/text", "minLength", json!(1), "string", None)),
        ),
        (
            json!({"text": "x".repeat(21)}),
            Some(("/input/text", "maxLength", json!(20), "string", None)),
        ),
        (
            json!({"text": "t", "count": 0}),
            Some(("/input/count", "minimum", json!(1), "integer", None)),
        ),
        (
            json!({"text": "t", "count": 1.5}),
            Some(("/input/count", "type", json!("integer"), "number", None)),
        ),
        (
            json!({"text": "t", "media": "markdwon"}),
            Some((
                "/input/media",
                "enum",
                json!(["markdown", "code"]),
                "string",
                Some("markdown"),
            )),
        ),
        (
            json!({"text": "t", "cuont": 1}),
            Some((
                "/input/cuont",
                "additionalProperties",
                json!(["text", "count", "media", "tags"]),
                "integer",
                Some("count"),
            )),
        ),
        (
            json!({"text": "t", "tags": [{"a/b~": null}]}),
            Some((
                "/input/tags/0/a~1b~0",
                "additionalProperties",
                json!(["name"]),
                "null",
                None,
            )),
        ),
    ];
    for (input, wanted) in table {
        let (status, problem) =
            submit(&api, json!({"goal": "x", "kind": "note", "input": input})).await;
        let Some((pointer, rule, expected, got_type, meant)) = wanted else {
            assert_eq!(status, 202, "{problem}");
            continue;
        };
        assert_eq!(
            (status, &problem["type"]),
            (422, &json!("urn:octollm:problem:invalid_input")),
            "{input}"
        );
        let mut error =
            json!({"pointer": pointer, "rule": rule, "expected": expected, "got_type": got_type});
        if let Some(meant) = meant {
            error["did_you_mean"] = meant.into();
        }
        assert_eq!(problem["errors"], json!([error]));
    }
    let (_, problem) = submit(&api, json!({"goal": "x", "kind": "note"})).await;
    assert_eq!(problem["field"], "input.text");
    assert_eq!(problem["detail"], "input.text is missing");
}

#[tokio::test]
async fn at_most_twenty_errors_are_reported_and_no_value_is_quoted() {
    let api = Api::new();
    publish(&api, false);
    let input: Value = (0..50)
        .map(|number| (format!("k{number}"), json!("a secret")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let (status, problem) =
        submit(&api, json!({"goal": "x", "kind": "note", "input": input})).await;
    assert_eq!(status, 422);
    assert_eq!(problem["errors"].as_array().unwrap().len(), 20);
    assert!(!problem.to_string().contains("secret"));
    // Neither is personal data in a name, nor more of a name than anyone reads.
    let input = json!({"text": "t", "ada@example.org": 1, ("k".repeat(400)): 2});
    let (_, problem) = submit(&api, json!({"goal": "x", "kind": "note", "input": input})).await;
    let text = problem.to_string();
    assert!(text.contains("[email]") && !text.contains("ada@"), "{text}");
    assert!(
        !text.contains(&"k".repeat(301)) && text.contains('…'),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_checked_is_what_later_stages_get() {
    let api = Api::new();
    publish(&api, false);
    // 20 characters that become 21.
    let body = json!({"goal": "x", "kind": "note", "input": {"text": "a@b.co a@b.co abcdef"}});
    let (status, problem) = submit(&api, body).await;
    assert_eq!(
        (status, &problem["errors"][0]["rule"]),
        (422, &json!("maxLength"))
    );
    let body = json!({"goal": "x", "kind": "note", "input": {"text": "a@b.co"}});
    assert_eq!(submit(&api, body).await.0, 202);
    let task = String::from_utf8(api.store.tasks()[0].body.clone()).unwrap();
    assert!(task.contains(r#""input":{"text":"[email]"}"#), "{task}");
}

#[test]
fn a_schema_that_refers_to_another_document_is_not_compiled() {
    for schema in [
        "5",
        "{",
        r#"{"$ref": "https://example.org/x.json"}"#,
        r#"{"$ref": "file:///etc/hosts"}"#,
        r#"{"pattern": "(?=a)"}"#,
    ] {
        let schemas = HashMap::from([("note".to_owned(), schema.to_owned())]);
        assert!(Table::compile(schemas).is_err(), "{schema}");
    }
}
