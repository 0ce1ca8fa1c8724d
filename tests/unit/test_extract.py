"""Answers out of passages: what is quoted, in which order, and when nothing is."""

from octollm.text.citations import cited, faults
from octollm.text.extract import MAX_SENTENCES, Source, extract

LEASES = Source(
    "A lease lasts thirty seconds. A worker renews its lease every five seconds.\n\nOctopuses have arms.", "Leases"
)
DEAD = Source("What is given up on becomes a dead letter. It keeps its reason and its history.", "Dead letters")


def said(question, *sources, most=MAX_SENTENCES):
    return [sources[one.source].text[one.span.start : one.span.end] for one in extract(question, sources, most)]


def test_the_sentence_that_speaks_of_what_was_asked_is_quoted():
    assert said("How often does a worker renew its lease?", DEAD, LEASES) == [
        "A worker renews its lease every five seconds."
    ]
    assert said("What is a dead letter?", LEASES, DEAD)[0] == "What is given up on becomes a dead letter."


def test_a_heading_speaks_for_its_sentences():
    source = Source("It keeps its reason. It is stored by fixed SQL.", "Dead letters")
    assert said("reason of dead letters", source) == ["It keeps its reason."]
    # But alone it says nothing.
    assert said("dead letters", source) == []


def test_nothing_is_said_of_what_was_not_found():
    for question in ("Which wine goes with fish?", "", "the of and", "worker payroll holiday insurance taxes"):
        assert said(question, LEASES, DEAD) == [], question
    assert said("lease") == []


def test_no_more_than_asked_none_twice_and_the_earlier_source_first():
    sources = [Source(f"The lease of number {n} is short. The lease is long.") for n in "abcde"]
    assert said("lease long", *sources) == ["The lease is long."]
    assert said("lease number", *sources, most=2) == [
        "The lease of number a is short.",
        "The lease of number b is short.",
    ]


def test_a_name_is_worth_more_when_whole():
    sources = [
        Source("The key of the max table."),
        Source("Set max_deliveries for each topic."),
        Source("Deliveries are max."),
    ]
    assert said("what does max_deliveries mean", *sources)[0] == "Set max_deliveries for each topic."


PLACE = {"collection": "c", "document": "d", "start": 0, "end": 9}
CITATION = {"n": 1, **PLACE, "quote": "one two", "first_line": 1, "last_line": 2}
TEXT = {**PLACE, "text": "one\n  two", "first_line": 1, "last_line": 2}


def fault(answer="one two [1]", text=TEXT, **changes):
    found = faults(answer, [{**CITATION, **changes}], [text])
    assert len(found) <= 1
    return found[0] if found else None


def test_a_citation_stands_where_it_says():
    assert fault() is None
    assert faults("", [], []) == []
    assert "'one too' does not stand there" in fault("one too [1]", quote="one too")
    assert "first_line is 2, the quote stands at 1" in fault(first_line=2)
    assert "last_line" in fault(last_line=None)
    assert "was not read" in fault(start=1)
    assert "was not read" in fault(document=["d"])
    assert "no such document" in fault(text={**TEXT, "text": None})
    assert "quotes nothing" in fault("", quote="")[0:60]
    assert fault(start=1).startswith("citation 1 (d): ")


def test_an_answer_is_made_of_its_quotes():
    assert "the answer says what no citation quotes: 'and three'" in fault("one two [1] and three")
    assert "no citation quotes" in fault("one two")
    assert "no citation quotes" in fault("one two [1] one two [1]")
    longer = {**CITATION, "n": 2, "quote": "one two three"}
    answer = f"{cited(1, 'one two')} {cited(2, 'one two three')}"
    assert faults(answer, [CITATION, longer], [TEXT])[0].startswith("citation 2")
    assert len(faults(answer, [CITATION, longer], [TEXT])) == 1
