"""Each concept has one standard name, and the private words that it replaced stay out.

`BANNED` maps each retired word to the term to use instead. A pattern is matched against the words of a file, which are
split at underscores and capitals and lower-cased, so that `fuse_tasks`, `FuseTasks` and "the fuse" all contain `fuse`.
A phrase may run over a line break, but not over the end of a sentence. `BANNED_TEXT` is matched against the text as it
is, where case or punctuation matters. docs/glossary.md lists the private words that stay.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BANNED = {
    # Components.
    r"fuse(d|s)?|blown": "circuit breaker, open",
    r"sweep(s|er|ers|ing)?|swept": "reconciler, reconcile",
    r"mender|menders": "reconciler",
    r"gatherer|gatherers|gathered|gathering": "batcher, batch",
    r"(?<!asyncio \. )gather": "batch",
    r"tak(e|es|en|ing) over|took over|takeover": "reclaim, reclaimer",
    r"minds?": "model client",
    r"clockwork": "scheduler",
    r"recalls?": "memory store, search",
    r"graves?": "dead letter",
    r"quarantine[ds]?": "isolation (of a suspect)",
    # Letters of the alphabet stand next to digits, have a case, or begin a name.
    r"(?<!dead )(?<!dead \. )(?<!u 0064 ead )(?<!case )(?<!with a )(?<!128 )letters?(?! (?:digits?|or|then|and) )": (
        "dead letter, always in full"
    ),
    r"doors?": "source (http, webhook, ingest)",
    r"rooms?": "capacity (a number), package (code)",
    r"halls?|ears": "entry point, listener",
    # Protocol.
    r"standing": "lease status",
    r"resen(d|t|ds|ding)": "republish",
    r"live (steps?|fields?)": "in-flight index, in-flight field",
    r"live views?": "event stream",
    r"hand(s|ed|ing)? on|onward": "chain",
    r"stretch(es)?": "chain, continuation",
    r"gather (ms|max)|gathers": "batch_wait_ms, batch_max",
    r"octollm waiting": "octollm_queued_messages",
    r"octollm running(?! messages)": "octollm_running_messages",
    r"builds? on early|steps \. early(?! results)": "early_results",
    r"troubles?": "error; REDIS_FAILURES",
    r"not now": "TRANSIENT_POSTGRES_ERRORS",
    r"not ready error": "StoreUnavailableError",
    r"moment came": "NotBeforeReached",
    r"unproven|forged": "SignatureError: Missing, Mismatch, Expired",
    r"lose rights": "drop_privileges",
    # Data.
    r"told|untold": "task event; status_pending",
    r"(?<!mem : : )forg(e|o)t(s|ten|ting)?": "delete, prune",
    r"remembered|unremembered|remembers": "indexed",
    r"doomed": "purge candidate",
    # Prose.
    r"whoever": "anyone who, the process that",
    r"beside": "next to, with",
    r"any more": "no longer",
    r"mend(s|ed|ing)?": "fix, repair",
    r"in the same breath": "in the same transaction, in the same script call",
    r"lies(?! (in the future|ahead))": "is",
    r"nobody s": "of no tenant, without an owner",
    r"patien(t|tly|ce)": "with retries; timeout",
    r"(is|are|was|were|be|been|being|stays?|stayed|while|redis|postgres|qdrant|store|database|server) away": (
        "unavailable"
    ),
    r"crowded": "overloaded",
    r"thinks": "uses_model",
}

BANNED_TEXT = {
    r"\b(?:class|struct|enum|trait|type)\s+(?:Hands|Held|HeldStates|Ending|Finish|Add|Delay|Live|Pauses?|Met|Understood|Refused"
    r"|Ask|Talk|Taken|About|Wish|Link|Facts|Place|Ran|Described|Birth|RestStep|Rest|Standing|Outgoing|Ears)\b": (
        "the standard noun"
    ),
    r"\b(?:def|fn)\s+(?:understand|patiently|against|tend|remind|well|broke|prove|bury|conclude"
    r"|lose_rights|eager|told_dead)\b": ("the standard verb"),
    r"\b(?:LONGEST|MOST)\b": "MAX_...",
    r"\bfuse_|octollm_fuse": "circuit_breaker_..., octollm_circuit_...",
    r"\b(?:ownership|forget|leave|resend)\.lua\b": "lease, prune, leave_group, republish",
    r":turns\b": ":ring",
    r"\b(?:purge_since|result_sends|looked_at|purge_s)\b": (
        "purge_requested_at, result_send_count, last_seen_at, purge_interval_s"
    ),
    r'"(?:asked|alive|unreadable|no_api)"': "accepted, status, malformed, api_not_configured",
    r"\bdoor=": "source=",
    r'"""One more\.': "a sentence with subject and verb",
}

# Files whose words are not ours: recorded payloads of other services, lock files, licences.
SKIPPED = (
    "LICENSE",
    "Cargo.lock",
    "requirements.lock",
    "tests/contract/webhooks/",
    "tests/contract/test_vocabulary.py",
    ".png",
    ".csv",
)

# (pattern, file): why the word stays there.
ALLOWED: dict[tuple[str, str], str] = {
    (r"(?<!mem : : )forg(e|o)t(s|ten|ting)?", "CHANGELOG.md"): "names a mode of an earlier version",
    (r"(?<!mem : : )forg(e|o)t(s|ten|ting)?", "schemas/rules/cases.json"): "a goal as an attacker would write it",
    (r"(?<!mem : : )forg(e|o)t(s|ten|ting)?", "schemas/rules/injection.json"): "a word of attackers' goals",
    (r"recalls?", "bench/search.py"): "the measure of a vector search",
    (r"not now", "workers/octollm/text/words.py"): "two neighbours in the list of stop words",
}

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[.;:!?]")


@dataclass(frozen=True)
class Hit:
    """One banned word in a file."""

    path: str
    line: int
    word: str
    pattern: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word} -> {self.instead}"


@cache
def files() -> dict[str, str]:
    """The text of every tracked file by its path."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    paths = [
        path for path in listed.split("\0") if path and not path.startswith(SKIPPED) and not path.endswith(SKIPPED)
    ]
    return {path: (ROOT / path).read_text(errors="replace") for path in paths if (ROOT / path).is_file()}


def words_of(text: str) -> tuple[str, list[int]]:
    """The words of a text in lower case, separated by blanks, and the line of each character of them."""
    joined: list[str] = []
    lines: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        for found in WORD.finditer(line):
            joined.append(found[0].lower())
            lines.extend([number] * (len(found[0]) + 1))
    return " ".join(joined), lines


def hits_in(path: str, text: str) -> Iterator[Hit]:
    """Every banned word of a file, its path included (as line 0)."""
    in_path, _ = words_of(path)
    words, lines = words_of(text)
    for pattern, instead in BANNED.items():
        bounded = re.compile(rf"(?<![^ ])(?:{pattern})(?![^ ])")
        if (pattern, path) in ALLOWED:
            continue
        for found in bounded.finditer(in_path):
            yield Hit(path, 0, found[0], pattern, instead)
        for found in bounded.finditer(words):
            yield Hit(path, lines[found.start()], found[0], pattern, instead)
    for pattern, instead in BANNED_TEXT.items():
        if (pattern, path) in ALLOWED:
            continue
        for found in re.finditer(pattern, text):
            yield Hit(path, text.count("\n", 0, found.start()) + 1, found[0], pattern, instead)


def hits() -> list[Hit]:
    """Every banned word of the repository."""
    return [hit for path, text in files().items() for hit in hits_in(path, text)]


def test_no_retired_word_is_used() -> None:
    found = hits()
    assert not found, f"{len(found)} retired words:\n" + "\n".join(map(str, found[:200]))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("worker.fuse_tasks = 5", "fuse"),
        ("class FuseState:", "fuse"),
        ("# does not run any\n# more", "any more"),
        ("nobody's message", "nobody s"),
        ("a letter", "letter"),
        ("class Held:", "class Held"),
    ],
)
def test_a_retired_word_is_found(text: str, word: str) -> None:
    assert word in {hit.word for hit in hits_in("a.py", text)}


@pytest.mark.parametrize(
    "text", ["confuse", "a dead letter", "dead_letters", "Are there any? More of them", "await asyncio.gather(a, b)"]
)
def test_other_words_pass(text: str) -> None:
    assert not list(hits_in("a.py", text))


def test_every_exemption_is_needed() -> None:
    everything = files()
    for (pattern, path), reason in ALLOWED.items():
        assert reason
        bounded = rf"(?<![^ ])(?:{pattern})(?![^ ])"
        text = everything[path]
        assert (
            re.search(bounded, words_of(text)[0]) or re.search(bounded, words_of(path)[0]) or re.search(pattern, text)
        ), (pattern, path)
