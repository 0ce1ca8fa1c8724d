"""Sentences, words and ranks: plain rules, and what they are meant to tell apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octollm.memory.rank_fusion import merge_ranks
from octollm.text.places import Span
from octollm.text.sentences import sentences
from octollm.text.words import names, terms


def split(text):
    return [text[one.start : one.end] for one in sentences(text, Span(0, len(text)))]


def test_sentences_end_where_they_do():
    assert split("It needs Python 3.11, e.g. from Debian. See octollm.toml. `make` helps! Does it? Yes.") == [
        "It needs Python 3.11, e.g. from Debian.",
        "See octollm.toml.",
        "`make` helps!",
        "Does it?",
        "Yes.",
    ]
    assert split("One\nline.\n\nNo stop here\n\n- first\n  goes on\n- second\n\n| a | b |\n| 1 | 2 |\n") == [
        "One\nline.",
        "No stop here",
        "- first\n  goes on",
        "- second",
        "| a | b |",
        "| 1 | 2 |",
    ]


@given(st.text(alphabet="aA .!?\n-|\"'*1", max_size=80))
def test_sentences_lose_nothing(text):
    assert "".join("".join(split(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    "same",
    ["retry retries retried", "lease leases leased", "run runs running", "class classes", "store stored storing stores",
     "stop stopped stops", "cache caches cached", "call calls calling", "octopus octopuses",
     "idempotent idempotency", "schedule scheduler scheduling", "organize organization", "Ready READY"],
)  # fmt: skip
def test_forms_of_a_word_are_one(same):
    assert len(set(terms(same))) == 1


def test_terms_leave_out_what_says_nothing_and_take_names_apart():
    assert terms("What is a NotOpenError, and why does max_deliveries matter?") == [
        "open", "error", "max", "deliveri", "matter",
    ]  # fmt: skip


def test_names_are_whole_and_lower_case():
    text = "Set OCTOLLM_QDRANT_URL in streams.yaml (see lua/claim.lua) for NotOpenError, not_before, 0.7.8; Ärger."
    assert names(text) == [
        "0.7.8", "lua/claim.lua", "not_before", "notopenerror", "octollm_qdrant_url", "streams.yaml", "ärger",
    ]  # fmt: skip
    assert names("x_" * 80) == []


def test_what_both_legs_find_comes_first():
    ranked = merge_ranks({"dense": ["a", "b", "c"], "keyword": ["d", "b"]})
    assert [one.key for one in ranked] == ["b", "a", "d", "c"]
    assert ranked[0].ranks == {"dense": 2, "keyword": 2}
    assert ranked[0].score == pytest.approx(2 / 62)
    assert merge_ranks({"dense": [], "keyword": []}) == []
    # The same thing twice in one leg has its first rank.
    assert merge_ranks({"keyword": ["a", "a", "b"]})[1].ranks == {"keyword": 2}
