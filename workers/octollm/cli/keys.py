"""`octollm keys`: create, list, revoke and rotate API keys.

A new key is the only thing on standard output, so that a script can store it; all else goes to standard error. No
command takes a whole key as an argument: other users of the host can read those.
"""

import asyncio
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from octollm.cli.lists import table
from octollm.cli.output import JsonOption, clean, emit_json, err, note, out, pairs
from octollm.contracts.ids import as_text
from octollm.contracts.tenants import is_tenant
from octollm.credentials.key import DEFAULT_SCOPES, SCOPES, ApiKey, Scope, id_of, named_id, visible
from octollm.credentials.keys import KeyRecord, Lifetime
from octollm.runtime import key_commands
from octollm.settings.loader import load_settings

_COLUMNS = ("key", "state", "tenant", "name", "scopes", "created_at", "expires_at", "last_used_at", "replaces")
_DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=3650)
_LONGEST_OVERLAP = timedelta(days=90)
_MAX_NAME = 100

keys = typer.Typer(no_args_is_help=True, help="Create, list, revoke and rotate API keys.")
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="The visible part of the key: octo_ and 12 characters.")]
Expires = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="A duration like 90d or 12h, a time like 2026-12-31, or never."),
]
AsJson = Annotated[bool, typer.Option("--json", help=JsonOption)]


@keys.command()
def create(
    *,
    tenant: Annotated[str, typer.Option(help="Whose tasks the key reads and submits.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(SCOPES), help="What the key may do; repeatable. Default: submit, read and cancel."
        ),
    ] = None,
    expires: Expires = "90d",
    name: Annotated[str | None, typer.Option(help="What the key is for; shown by `ls`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it, once: only its hash is stored."""
    if not is_tenant(tenant):
        raise typer.BadParameter(
            "must have 1 to 63 lower-case letters, digits, _ or -, and begin with a letter or digit",
            param_hint="--tenant",
        )
    if name is not None and not (1 <= len(name) <= _MAX_NAME and name.isprintable()):
        raise typer.BadParameter(f"must have 1 to {_MAX_NAME} printable characters", param_hint="--name")
    scopes, lifetime = _scopes(scope), _lifetime(expires)
    key, record, problem = asyncio.run(key_commands.create_key(load_settings(), tenant, scopes, lifetime, name))
    _print_new(key, record, problem, as_json=as_json)


@keys.command()
def ls(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only the keys of this tenant.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of keys.")] = 200,
    as_json: AsJson = False,
) -> None:
    """List keys, newest first, with the expired and revoked ones."""
    found = asyncio.run(key_commands.list_keys(load_settings(), tenant, limit + 1))
    rows = [_facts(record) for record in found[:limit]]
    if as_json:
        emit_json({"items": rows, "complete": len(found) <= limit})
        return
    if rows:
        out().print(table([{**row, "scopes": ",".join(row["scopes"])} for row in rows], _COLUMNS))
    else:
        note("no keys")
    if len(found) > limit:
        note(f"there are more: --limit {2 * limit}")


@keys.command()
def revoke(key: KeyId, *, as_json: AsJson = False) -> None:
    """Revoke a key for good.

    It stops working within a second. Revoking it again changes nothing.
    """
    record, changed, problem = asyncio.run(key_commands.revoke_key(load_settings(), _id(key)))
    if as_json:
        emit_json({**_facts(record), "changed": changed, "published": problem is None})
    elif changed:
        out().print(f"revoked {visible(record.id)} of tenant {record.tenant}")
    else:
        out().print(f"{visible(record.id)} was revoked before")
    if problem is not None:
        note(problem)


@keys.command()
def rotate(
    key: KeyId,
    *,
    overlap: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the old key stays valid, at most 90d.")
    ] = "24h",
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Print a new key with the same tenant, name and scopes; the old one expires after the overlap.

    Without --expires the new key is valid for as long as the old one was at first.
    """
    lasts = _duration(overlap)
    if lasts is None or lasts > _LONGEST_OVERLAP:
        raise typer.BadParameter("must be a duration like 0s, 30m, 24h or 7d, at most 90d", param_hint="--overlap")
    lifetime = None if expires is None else _lifetime(expires)
    made = asyncio.run(key_commands.rotate_key(load_settings(), _id(key), lasts, lifetime))
    new, record, old, problem = made
    _print_new(new, record, problem, as_json=as_json, old=old)


def _print_new(
    key: ApiKey, record: KeyRecord, problem: str | None, *, as_json: bool, old: KeyRecord | None = None
) -> None:
    facts = _facts(record)
    if as_json:
        replaced = {} if old is None else {"old": _facts(old)}
        emit_json({"api_key": key.text, **facts, "published": problem is None, **replaced})
    else:
        rows: list[tuple[str, object]] = [(name, facts[name]) for name in ("key", "tenant", "name") if facts[name]]
        rows += [("scopes", ", ".join(record.scopes)), ("expires", facts["expires_at"] or "never")]
        if old is not None:
            rows.append((f"{visible(old.id)} expires", _facts(old)["expires_at"]))
        err().print(pairs(rows))
        note("store the key now: it is not shown again")
        out().print(key.text, soft_wrap=True)
    if problem is not None:
        note(problem)


def _facts(record: KeyRecord) -> dict[str, Any]:
    facts = asdict(record)
    times = {name: as_text(value) for name, value in facts.items() if isinstance(value, datetime)}
    replaces = None if record.replaces is None else visible(record.replaces)
    return {"key": visible(facts.pop("id")), **facts, **times, "replaces": replaces}


def _id(text: str) -> str:
    whole = id_of(text)
    if whole is not None:
        raise typer.BadParameter(
            f"this is a whole key, and other users of this host may have seen it; name it by {visible(whole)}, and "
            "rotate or revoke it",
            param_hint="KEY",
        )
    found = named_id(text)
    if found is None:
        raise typer.BadParameter(
            "must be octo_ and 12 characters, the visible part of a key; `octollm keys ls` shows it", param_hint="KEY"
        )
    return found


def _scopes(given: list[str] | None) -> tuple[Scope, ...]:
    if not given:
        return DEFAULT_SCOPES
    unknown = [clean(one)[:40] for one in given if one not in SCOPES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(SCOPES)}", param_hint="--scope")
    return tuple(one for one in SCOPES if one in given)


def _duration(text: str) -> timedelta | None:
    found = _DURATION.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def _lifetime(text: str | None) -> Lifetime:
    if text is None or text == "never":
        return Lifetime()
    now = datetime.now(UTC)
    lasts = _duration(text)
    try:
        until = now + lasts if lasts is not None else datetime.fromisoformat(text)
        until = until if until.tzinfo is not None else until.astimezone()
        usable = now < until <= now + _LONGEST
    except (ValueError, OverflowError):
        usable = False
    if not usable:
        raise typer.BadParameter(
            "must be a duration like 12h or 90d, a future time like 2026-12-31, or never; at most ten years from now",
            param_hint="--expires",
        )
    return Lifetime(lasts=lasts) if lasts is not None else Lifetime(until=until)
