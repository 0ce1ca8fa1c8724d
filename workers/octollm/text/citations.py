"""Whether an answer is made of what its citations quote, and each quote stands where it says. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from octollm.text.places import squeezed

_SHOWN = 80
_WHERE = ("collection", "document", "start", "end")


def cited(number: int, quote: str) -> str:
    """A quote as it stands in an answer."""
    return f"{quote} [{number}]"


def faults(answer: str, citations: Sequence[Mapping[str, Any]], texts: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each citation that is wrong, and for an answer that is more than its quotes."""
    stored = {_place(text): text for text in texts}
    found = []
    for citation in citations:
        fault = _fault(citation, stored.get(_place(citation)))
        if fault is not None:
            found.append(f"citation {citation.get('n')} ({citation.get('document')}): {fault}")
    rest = squeezed(answer)
    for citation in sorted(citations, key=lambda one: -len(str(one.get("quote")))):
        rest = rest.replace(cited(citation.get("n", 0), squeezed(str(citation.get("quote")))), " ", 1)
    if rest.strip():
        found.append(f"the answer says what no citation quotes: {squeezed(rest)[:_SHOWN]!r}")
    return found


def _place(one: Mapping[str, Any]) -> str:
    """Whatever stands there, comparable."""
    return repr([one.get(name) for name in _WHERE])


def _fault(citation: Mapping[str, Any], text: Mapping[str, Any] | None) -> str | None:
    quote = citation.get("quote")
    if not isinstance(quote, str) or not quote.strip():
        return "it quotes nothing"
    if text is None:
        return "its place was not read"
    stands = text.get("text")
    if not isinstance(stands, str):
        return "there is no such document"
    if squeezed(stands) != squeezed(quote):
        return f"{quote[:_SHOWN]!r} does not stand there, but {squeezed(stands)[:_SHOWN]!r}"
    for name in ("first_line", "last_line"):
        if citation.get(name) != text.get(name):
            return f"{name} is {citation.get(name)}, the quote stands at {text.get(name)}"
    return None
