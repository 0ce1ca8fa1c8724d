"""A schema of a plan opens no connection and no file, and is checked in linear time."""

import socket
import time

import pytest

from octollm.contracts.json_schema import validator
from octollm.errors import SchemaError


@pytest.fixture
def listening():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)  # noqa: FBT003  socket has no keywords
        yield server


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef", "$schema"])
def test_a_reference_outside_of_the_document_is_not_fetched(listening, keyword):
    with pytest.raises(SchemaError):
        validator({keyword: f"http://127.0.0.1:{listening.getsockname()[1]}/latest/meta-data"})
    with pytest.raises(BlockingIOError):
        listening.accept()


@pytest.mark.parametrize("schema", [{"$id": "file:///", "$ref": "FILE"}, {"$ref": "file:FILE"}])
def test_no_file_is_read(tmp_path, schema):
    secret = tmp_path / "secret.json"
    secret.write_text('{"const": 5}')
    with pytest.raises(SchemaError):
        validator({name: text.replace("FILE", str(secret)) for name, text in schema.items()})


def test_a_reference_within_the_document_works():
    one = validator({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}})
    assert not list(one.iter_errors(1))
    assert list(one.iter_errors("x"))


def test_a_pattern_takes_linear_time():
    began = time.process_time()
    assert list(validator({"pattern": "(a+)+$"}).iter_errors("a" * 50_000 + "!"))
    assert time.process_time() - began < 1


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"pattern": "(?=a)b"}, {"pattern": "("}, {"minimum": "x"}])
def test_what_is_no_schema_is_refused(schema):
    with pytest.raises(SchemaError):
        validator(schema)
