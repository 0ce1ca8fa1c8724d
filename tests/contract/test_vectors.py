"""The models, the codec and the schemas judged by `schemas/vectors`; `schemas/rust/tests/vectors.rs` is the twin."""

import json
import re
from pathlib import Path

import jsonschema_rs
import mutate
import pytest
from pydantic import BaseModel

from octollm import contracts
from octollm.errors import ContractError

MODELS: dict[str, type[BaseModel]] = {
    "dead.letter.v1": contracts.DeadLetter,
    "step.done.v1": contracts.StepDone,
    "step.requested.v1": contracts.StepRequested,
    "task.cancel.v1": contracts.TaskCancel,
    "task.redrive.v1": contracts.TaskRedrive,
    "dead.drop.v1": contracts.DeadDrop,
    "task.event.v1": contracts.TaskEvent,
    "task.rejected.v1": contracts.TaskRejected,
    "task.result.v1": contracts.TaskResult,
    "task.status.v1": contracts.TaskStatus,
    "task.submission.v1": contracts.TaskSubmission,
    "task.submitted.v1": contracts.TaskSubmitted,
}
VALIDATORS = {event: jsonschema_rs.Draft202012Validator(mutate.load(event)) for event in MODELS}


def vectors(folder: str) -> list[Path]:
    return sorted(mutate.VECTORS.glob(f"*/{folder}/*"))


def name(file: Path) -> str:
    return f"{file.parts[-3]}/{file.name}"


def event(file: Path) -> str:
    return file.parts[-3]


def as_json(data: bytes) -> str:
    """A form in which 1, 1.0 and true differ; dictionaries that only compare equal would hide them."""
    return json.dumps(json.loads(data), sort_keys=True)


def test_every_event_has_a_model_and_vectors_of_each_kind():
    assert {path.name.removesuffix(mutate.SUFFIX) for path in mutate.EVENTS.iterdir()} == MODELS.keys()
    for folder in ("valid", "invalid", "codec"):
        assert {event(file) for file in vectors(folder)} == MODELS.keys()


@pytest.mark.parametrize("file", vectors("valid"), ids=name)
def test_a_valid_vector_survives_the_round_trip(file: Path):
    data, model = file.read_bytes(), MODELS[event(file)]
    once = contracts.write(contracts.read(model, data))
    assert as_json(once) == as_json(data)
    assert contracts.write(contracts.read(model, once)) == once


@pytest.mark.parametrize("file", vectors("invalid"), ids=name)
def test_an_invalid_vector_is_refused_by_the_name_of_its_field(file: Path):
    with pytest.raises(ContractError) as caught:
        contracts.read(MODELS[event(file)], file.read_bytes())
    field = "object" if file.name.startswith("document.") else file.name.split(".")[-3]
    assert caught.value.reason == "schema"
    assert re.search(rf"\b{field}\b", caught.value.message), caught.value.message


@pytest.mark.parametrize("file", vectors("codec"), ids=name)
def test_a_codec_vector_never_gets_as_far_as_its_schema(file: Path):
    with pytest.raises(ContractError) as caught:
        contracts.read(MODELS[event(file)], file.read_bytes())
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("file", vectors("valid"), ids=name)
def test_the_schema_takes_each_valid_vector(file: Path):
    VALIDATORS[event(file)].validate(json.loads(file.read_bytes()))


@pytest.mark.parametrize("file", vectors("invalid"), ids=name)
def test_the_schema_finds_exactly_one_broken_place(file: Path):
    errors = list(VALIDATORS[event(file)].iter_errors(json.loads(file.read_bytes())))
    # One place, not one error: a number where a word should be breaks `type` and `enum` together.
    places = {tuple(error.instance_path) for error in errors}
    # JSON Schema knows no difference between 5 and 5.0; our readers do, because other languages do.
    wanted = 0 if file.name.endswith(f".{mutate.WHOLE_FLOAT}.json") else 1
    assert len(places) == wanted, [error.message for error in errors]


def test_the_mutator_refuses_to_call_a_fitting_text_a_near_miss(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(mutate.PATTERNS, "^[a-z][a-z0-9_-]{0,62}$", ("a", "a", {"fits": "abc"}))
    with pytest.raises(SystemExit, match="breaks no rule"):
        mutate.generated()


def test_an_optional_field_set_to_none_by_code_is_left_out():
    made = contracts.TaskSubmission(goal="x", kind=None)
    assert contracts.write(made) == b'{"goal":"x"}'


def test_a_required_null_is_written():
    minimal = mutate.VECTORS / "task.result.v1/valid/minimal.json"
    result = contracts.read(contracts.TaskResult, minimal.read_bytes())
    assert json.loads(contracts.write(result))["answer"] is None


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (contracts.TaskSubmission, '{"goal":"x","priority":"SECRET"}'),
        (contracts.TaskSubmission, '{"goal":["SECRET"]}'),
        (contracts.TaskSubmission, '{"goal":"x","deadline_s":"SECRET"}'),
        (contracts.TaskSubmission, '{"goal":"x","SECRET":1,"SECRET":2}'),
        (contracts.StepDone, '{"outcome":"SECRET"}'),
        (contracts.TaskSubmission, '{"goal":SECRET}'),
        (contracts.TaskSubmission, '{"goal":4111111111111111411111111111111}'),
    ],
)
def test_a_refusal_never_quotes_the_value(model: type[BaseModel], text: str):
    with pytest.raises(ContractError) as caught:
        contracts.read(model, text.encode())
    assert "SECRET" not in caught.value.message
    assert "41111" not in caught.value.message
