"""Sample payloads of webhooks.

They are in `samples/`; for other mapped events they have the fields that the mapping reads.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import orjson

from octollm.errors import WebhooksError
from octollm.topology.webhooks import EventMapping, Source

_SAMPLES = files("octollm.cli") / "samples"


def sample(source: Source, event: str, inputs: Mapping[str, str]) -> bytes:
    """Return a payload of `event` as JSON.

    `inputs`: values by the name of an input of the event's mapping.

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
    if source.scheme == "standard":
        payload = {**payload, "type": event}
    for name, value in inputs.items():
        pointer = mapping.input.get(name) if mapping else None
        if pointer is None:
            raise WebhooksError(f"the event {event} has no input {name}; leave out --{name}, or use --file")
        _put(payload, pointer, value)
    return orjson.dumps(payload)


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
