"""`webhooks.yaml` as frozen objects.

They say who may send webhooks, how they are signed, and which task each event becomes.

The same rules hold in `schemas/rust/src/webhooks.rs`; the files in `tests/contract/webhooks` judge both.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from octollm.errors import WebhooksError
from octollm.topology import strict_yaml

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_POINTER = re.compile(r"/([^~]|~[01])*", re.DOTALL)


def _secret(text: str) -> str:
    # Never quotes the text: it may be the secret itself, written here by mistake.
    kind, _, rest = text.partition(":")
    if kind == "env" and text.startswith("env:"):
        if not _VARIABLE.fullmatch(rest):
            raise ValueError("env: must be followed by the name of a variable")
        if rest.upper().startswith("OCTOLLM_"):
            raise ValueError("must not name a variable that starts with OCTOLLM_; call it otherwise")
    elif kind != "file" or not rest.startswith("/"):
        raise ValueError("must be env:NAME or file:/absolute/path; the secret itself has no place here")
    return text


def _pointer(text: str) -> str:
    if not _POINTER.fullmatch(text):
        raise ValueError("must be a JSON pointer, like /issue/title")
    return text


Secret = Annotated[str, AfterValidator(_secret)]
Pointer = Annotated[str, AfterValidator(_pointer)]
Scheme = Literal["github", "standard"]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class EventMapping(_Closed):
    """The task that one kind of event becomes."""

    kind: Annotated[str, Field(pattern=r"\A[a-z][a-z0-9_.-]{0,62}\z")]
    goal: Annotated[str, Field(min_length=1, max_length=10_000)]
    only: Mapping[Pointer, Annotated[tuple[object, ...], Field(strict=False)]] = Field(default_factory=dict)
    input: Mapping[str, Pointer]
    optional: Annotated[tuple[str, ...], Field(strict=False)] = ()


class Source(_Closed):
    """One sender; its name is the last part of its address."""

    description: str
    scheme: Scheme
    tenant: Annotated[str, Field(pattern=r"\A[a-z0-9][a-z0-9_-]{0,62}\z")]
    secrets: Annotated[tuple[Secret, ...], Field(strict=False)]
    events: Mapping[str, EventMapping]


class _File(_Closed):
    version: int
    sources: Mapping[str, Source]


def load_webhooks(path: Path) -> Mapping[str, Source]:
    """Every source in `path` by its name; raises WebhooksError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WebhooksError(
            f"{path}: cannot be read ({error}); set OCTOLLM_WEBHOOKS_FILE to a file of webhook sources"
        ) from error
    try:
        return _parse(text)
    except WebhooksError as error:
        raise WebhooksError(f"{path}: {error}") from error


def _parse(text: str) -> Mapping[str, Source]:
    try:
        raw = strict_yaml.load(text)
    except strict_yaml.YAMLError as error:
        raise WebhooksError(f"not valid YAML: {error}") from error
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        raise WebhooksError(strict_yaml.explain(error.errors(include_url=False)[0])) from error
    _ensure(file.version == 1, f"version: is {file.version}, this program reads version 1")
    for name, source in file.sources.items():
        _check(f"sources.{name}", name, source)
    return file.sources


def _check(at: str, name: str, source: Source) -> None:
    _ensure(_NAME.fullmatch(name), f"{at}: is no source name; use a lower-case letter, then letters, digits, _ and -")
    _ensure(source.secrets, f"{at}.secrets: must name at least one, like env:GITHUB_WEBHOOK_SECRET")
    _ensure(source.events, f"{at}.events: must map at least one event")
    for event, mapping in source.events.items():
        _ensure(event, f"{at}.events.: an event has a name")
        for pointer, values in mapping.only.items():
            plain = bool(values) and all(isinstance(value, (str, int, float)) for value in values)
            _ensure(plain, f"{at}.events.{event}.only.{pointer}: must list at least one text, number or truth value")
        for missing in set(mapping.optional) - set(mapping.input):
            _ensure(
                None,
                f"{at}.events.{event}.optional: {missing} is no name under input; add it there or remove it here",
            )


def _ensure(holds: object, message: str) -> None:
    if not holds:
        raise WebhooksError(message)
