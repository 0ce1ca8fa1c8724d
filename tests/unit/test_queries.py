"""Files of named queries."""

import pytest

from octollm.database.queries import parse_queries


def test_comments_belong_to_no_query():
    lines = ("-- A file.", "-- name: a", "-- Why.", "SELECT 1", "  -- Inside.", "  , 2", "-- About b.", "-- name: b")
    text = "\n".join((*lines, "SELECT '-- text'", ""))
    assert parse_queries(text) == {"a": "SELECT 1\n  , 2", "b": "SELECT '-- text'"}


def test_two_queries_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two queries are named a"):
        parse_queries("-- name: a\nSELECT 1\n-- name: a\nSELECT 2\n")
