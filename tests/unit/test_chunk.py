"""Passages: exact places, nothing lost, nothing twice, what belongs together kept together."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octollm.memory.chunk import chunks
from octollm.resources import checkout

WORD = re.compile(r"\w+|[^\w\s]")
LINES = st.sampled_from(
    [
        "", " ", "\t", "# Top", "## Below", "### Deep #", "Title", "=====", "---", "```", "~~~python", "````",
        "| a | b |", "|---|---|", "- item. Another sentence!", "1. first", "def f(x):", "    return x", "}", "@wrap",
        "A sentence. And one more? Yes! Café naïve 日本語。 e.g. this", "x" * 90, "\r",
        "\x0b odd \x85 breaks\u2028here",
    ]
)  # fmt: skip
TEXTS = st.one_of(st.lists(LINES, max_size=40).map("\n".join), st.text(max_size=300))
MEDIA = st.sampled_from(["markdown", "text", "code"])


def words(texts):
    return [len(WORD.findall(text)) for text in texts]


def characters(texts):
    """A tokenizer that finds more in a whole than in its parts."""
    return [len(text) + text.count("\n") for text in texts]


@given(TEXTS, MEDIA, st.integers(1, 40), st.sampled_from([words, characters]))
def test_places_are_exact_and_every_character_is_in_one_passage(text, media, longest, count):
    found = chunks(text, media, count, longest)
    lines = text.split("\n")
    for one in found:
        assert text[one.start : one.end] == one.text
        assert one.text.strip()
        assert one.tokens == count([one.text])[0]
        assert one.tokens <= longest or len(one.text) == 1
        assert one.text.split("\n")[0] in lines[one.first_line - 1]
        assert one.text.split("\n")[-1] in lines[one.last_line - 1]
        assert one.last_line - one.first_line == one.text.count("\n")
    assert all(before.end <= after.start for before, after in pairwise(found))
    kept = "".join(text[one.start : one.end] for one in found)
    assert "".join(kept.split()) == "".join(text.split())


MARKDOWN = """# Guide

## Start

Run it once.
Then again.

```sh
make demo

make test
```

| a | b |
|---|---|
| 1 | 2 |

### Deep

- one
- two

Setext
======
Last words.
"""


def test_markdown_is_cut_at_its_headings_and_blocks_stay_whole():
    found = chunks(MARKDOWN, "markdown", words, 100)
    assert [one.heading for one in found] == ["Guide > Start", "Guide > Start > Deep", "Setext"]
    assert [(one.first_line, one.last_line) for one in found] == [(1, 16), (18, 21), (23, 25)]
    cut = chunks(MARKDOWN, "markdown", words, 19)
    assert "```sh\nmake demo\n\nmake test\n```" in [one.text for one in cut]
    assert all(one.text.count("```") % 2 == 0 for one in cut)


def test_a_heading_is_no_passage_by_itself():
    for longest in range(4, 30):
        for one in chunks("# A\n## B\n" + "word " * 60 + ".", "markdown", words, longest):
            assert one.text.replace("#", "").split() != ["B"], longest


def test_a_fence_hides_headings_and_an_unclosed_one_ends_with_the_text():
    found = chunks("# A\n````\n```\n# no heading\n````\n# B\n~~~\nx\n# y", "markdown", words, 100)
    assert [one.heading for one in found] == ["A", "B"]


def test_code_is_cut_at_definitions():
    first = '"""Doc."""\n\nimport os\n'
    code = first + "\n\n# about f\n@wrap\ndef f():\n    x = 1\n\n    return x\n\n\ndef g(\n    a,\n\n):\n    pass\n"
    found = [one.text for one in chunks(code, "code", words, 17)]
    assert "# about f\n@wrap\ndef f():\n    x = 1\n\n    return x" in found
    assert "def g(\n    a,\n\n):\n    pass" in found


@pytest.mark.parametrize("name", ["README.md", "docs/ARCHITECTURE.md"])
def test_the_projects_own_documents(name):
    text = (checkout() / name).read_text()
    found = chunks(text, "markdown", words, 150)
    assert max(one.tokens for one in found) <= 150
    assert sum(one.tokens for one in found) / len(found) > 50


def test_a_large_text_without_a_break_is_cut_too():
    found = chunks("x" * 200_000 + "\n" + "y " * 100_000, "text", characters, 1000)
    assert len(found) >= 400
