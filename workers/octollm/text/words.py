"""The words of a text that say what it is about, in a form in which related ones are equal."""

import re

from Stemmer import Stemmer

_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Something joins its parts, as in bus/lua/claim.lua, not_before, 0.7.8, x-hub-signature or task.result.v1.
_NAME = re.compile(r"[^\W_][\w./:@+-]*[\w/]")
_JOINED = re.compile(r"\w[./:@_+-]\w|[a-z0-9][A-Z]")
_LONGEST_NAME = 100
_COMMON_WORDS = """
about after all also am an and any are as at be because been before being below between both but by can could did do
does doing down each every few for from further get had has have having here how i if in into is it its just me more
most my no nor not now of off on once one only or other our out over own same she he should so some such than that
the their them then there these they this those through to too under until up us use very was we were what when
where which while who whom whose why will with would you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())


def terms(text: str) -> list[str]:
    """Return what the text is about, in order: English stems of its words without the most common ones.

    camelCase and names with underscores are split into their words.
    """
    parts = (part.lower() for word in _WORD.findall(text) for part in _CAMEL.split(word))
    words = [part for part in parts if part not in _COMMON and (len(part) > 1 or not part.isascii())]
    # Created here because a stemmer must not be used by two threads at once; that costs less than stemming two words.
    stems: list[str] = Stemmer("english").stemWords(words)
    return stems


def names(text: str) -> list[str]:
    """Return each name (identifier, path, version, header) and each non-ASCII word once, sorted.

    They are whole and in lower case.
    """
    found = set()
    for match in _NAME.finditer(text):
        name = match[0]
        if len(name) <= _LONGEST_NAME and (_JOINED.search(name) or not name.isascii()):
            found.add(name.lower())
    return sorted(found)
