"""`webhooks.yaml` as frozen objects.

They say who may send webhooks, how they are signed, and which task each event becomes.

The same rules hold in `schemas/rust/src/webhooks.rs`; the files in `tests/contract/webhooks` judge both.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from octollm.errors import WebhooksError
from octollm.topology import strict_yaml

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_POINTER = re.compile(r"/([^~]|~[01])*", re.DOTALL)
_HEADER = re.compile(r"[A-Za-z0-9_-]{1,100}")
_PREFIX = re.compile(r"[ -~]{0,64}")
_PLACEHOLDER = re.compile(r"\{([^}]*)(\}|\Z)", re.DOTALL)

DEFAULT_TOLERANCE_S = 300
_MAX_TOLERANCE_S = 3600
# A delivery costs one HMAC of its body for each secret, before anyone knows who sent it.
_MAX_SECRETS = 8


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


def _header(text: str) -> str:
    if not _HEADER.fullmatch(text):
        raise ValueError("must be the name of a header, like X-Signature")
    return text.lower()


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ValueError("must be at most 64 printable ASCII characters")
    return text


def _format(text: str) -> str:
    found = _PLACEHOLDER.findall(text)
    names = [name for name, _ in found]
    known = set(names) <= {"body", "timestamp", "id"} and all(end for _, end in found)
    if not known or "body" not in names or len(set(names)) < len(names):
        raise ValueError("must contain {body} once, and may contain {timestamp} and {id} once")
    return text


Secret = Annotated[str, AfterValidator(_secret)]
Pointer = Annotated[str, AfterValidator(_pointer)]
HeaderName = Annotated[str, AfterValidator(_header)]
Prefix = Annotated[str, AfterValidator(_prefix)]
Scheme = Literal["standard", "github", "gitlab", "stripe", "slack", "hmac", "shared_secret"]
Encoding = Literal["hex", "base64", "base64url"]
SecretEncoding = Literal["plain", "hex", "base64", "base64url"]
Algorithm = Literal["sha1", "sha256", "sha512"]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Hmac(_Closed):
    """A sender's own HMAC: where the signature is, how it is written and what it signs."""

    header: HeaderName
    prefix: Prefix = ""
    encoding: Encoding = "hex"
    algorithm: Algorithm = "sha256"
    secret_encoding: SecretEncoding = "plain"  # noqa: S105  how a secret is written
    timestamp_header: HeaderName | None = None
    id_header: HeaderName | None = None
    format: Annotated[str, AfterValidator(_format)] = "{body}"


class SharedSecret(_Closed):
    """A secret that the sender puts into a header as it is."""

    header: HeaderName
    prefix: Prefix = ""


class EventLocation(_Closed):
    """Where a delivery says which event it is about: exactly one of the three is set."""

    header: HeaderName | None = None
    pointer: Pointer | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.header, self.pointer, self.name)) != 1:
            raise ValueError("must have one of header, pointer and name")
        return self


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
    tolerance_s: int | None = None
    hmac: Hmac | None = None
    shared_secret: SharedSecret | None = None
    event: EventLocation | None = None
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
    _ensure(
        len(source.secrets) <= _MAX_SECRETS,
        f"{at}.secrets: must name at most {_MAX_SECRETS}; remove those that are no longer used",
    )
    _ensure(source.events, f"{at}.events: must map at least one event")
    for event, mapping in source.events.items():
        _ensure(event, f"{at}.events.: an event has a name")
        _check_mapping(f"{at}.events.{event}", mapping)
    _check_scheme(at, source)
    _ensure(
        source.event is not None or source.scheme not in {"hmac", "shared_secret"},
        f"{at}.event: missing; say where the event's name is: header, pointer or name",
    )
    only = source.event.name if source.event else None
    _ensure(
        only is None or only in source.events,
        f"{at}.event.name: {only} is no name under events; add it there or correct it",
    )


def _check_mapping(at: str, mapping: EventMapping) -> None:
    for pointer, values in mapping.only.items():
        plain = bool(values) and all(isinstance(value, (str, int, float)) for value in values)
        _ensure(plain, f"{at}.only.{pointer}: must list at least one text, number or truth value")
    for missing in set(mapping.optional) - set(mapping.input):
        _ensure(None, f"{at}.optional: {missing} is no name under input; add it there or remove it here")


def _check_scheme(at: str, source: Source) -> None:
    options = {"hmac": source.hmac, "shared_secret": source.shared_secret}
    for name, given in options.items():
        needed = source.scheme == name
        _ensure(needed or given is None, f"{at}.{name}: belongs to another scheme; remove it or change scheme")
        _ensure(
            not needed or given is not None, f"{at}.{name}: missing; this scheme needs it, with at least the header"
        )
    if source.hmac is not None:
        _check_hmac(f"{at}.hmac", source.hmac)
    if source.tolerance_s is not None:
        _ensure(1 <= source.tolerance_s <= _MAX_TOLERANCE_S, f"{at}.tolerance_s: must be from 1 to {_MAX_TOLERANCE_S}")
        _ensure(_signs_time(source), f"{at}.tolerance_s: this source signs no time; remove it")


def _check_hmac(at: str, hmac: Hmac) -> None:
    for field, header in (("timestamp", hmac.timestamp_header), ("id", hmac.id_header)):
        signed = f"{{{field}}}" in hmac.format
        _ensure(signed or header is None, f"{at}.format: must contain {{{field}}}, because {field}_header is set")
        _ensure(not signed or header is not None, f"{at}.{field}_header: missing; the format contains {{{field}}}")


def _signs_time(source: Source) -> bool:
    if source.hmac is not None:
        return source.hmac.timestamp_header is not None
    return source.scheme not in {"github", "shared_secret"}


def _ensure(holds: object, message: str) -> None:
    if not holds:
        raise WebhooksError(message)
