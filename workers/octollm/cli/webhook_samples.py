"""Sample payloads of webhooks.

They are in `samples/`; for other mapped events they have the fields that the mapping reads.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

import orjson

from octollm.errors import WebhooksError
from octollm.topology.webhooks import EventMapping, Source

_SAMPLES = files("octollm.cli") / "samples"


def sample(source: Source, event: str, delivery: str, inputs: Mapping[str, str], *, form: bool = False) -> bytes:
    """Return a payload of `event` as JSON, or as the sender of `source` puts it into a form.

    `delivery`: the payload's id, where the scheme has the id in the payload; `inputs`: values by the name of an input
    of the event's mapping.

    Raises WebhooksError when there is no sample, or no such input.
    """
    mapping = source.events.get(event)
    file = _SAMPLES / f"{source.scheme}.{event}.json"
    if "/" not in event and file.is_file():
        payload: dict[str, Any] = orjson.loads(file.read_bytes())
    elif mapping is not None:
        payload = _from_mapping(mapping)
    else:
        known = ", ".join(source.events)
        raise WebhooksError(f"there is no sample of the event {event}; give a payload with --file, or send {known}")
    for pointer, text in _envelope(source, event, delivery, form=form).items():
        _put(payload, pointer, text)
    for name, value in inputs.items():
        found = mapping.input.get(name) if mapping else None
        if found is None:
            raise WebhooksError(f"the event {event} has no input {name}; leave out --{name}, or use --file")
        _put(payload, found, value)
    if not form:
        return orjson.dumps(payload)
    return as_form(payload if _is_command(source, event) else {"payload": orjson.dumps(payload).decode()})


def as_form(fields: Mapping[str, object]) -> bytes:
    """Return `fields` as `application/x-www-form-urlencoded`."""
    return urlencode(fields).encode()


def _is_command(source: Source, event: str) -> bool:
    return source.scheme == "slack" and event.startswith("/")


def _envelope(source: Source, event: str, delivery: str, *, form: bool) -> Mapping[str, str]:
    """Return what a payload says of itself: each value by its JSON pointer."""
    if source.event is not None:
        own = {source.event.pointer: event} if source.event.pointer is not None else {}
    elif _is_command(source, event):
        own = {"/command": event}
    elif source.scheme == "slack":
        own = {"/type": event} if form else {"/type": "event_callback", "/event/type": event}
    else:
        pointers = {"standard": "/type", "stripe": "/type", "gitlab": "/object_kind"}
        own = {pointers[source.scheme]: event} if source.scheme in pointers else {}
    ids = {"stripe": "/id", "slack": "/event_id"}
    if source.scheme in ids and not form:
        own[ids[source.scheme]] = delivery
    return own


def _from_mapping(mapping: EventMapping) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    for name, pointer in mapping.input.items():
        _put(payload, pointer, f"a sample of {name}")
    for pointer, values in mapping.only.items():
        _put(payload, pointer, values[0])
    return payload


def _put(payload: dict[str, Any], pointer: str, value: object) -> None:
    """Set the value at an RFC 6901 pointer, creating missing objects on the path."""
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
    target = payload
    for part in parents:
        child = target.setdefault(part, {})
        if not isinstance(child, dict):
            raise WebhooksError(f"no sample can be made for {pointer}; give a payload with --file")
        target = child
    target[last] = value
