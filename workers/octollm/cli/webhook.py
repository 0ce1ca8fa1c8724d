"""`octollm webhook send`: signs and sends a payload like a configured source."""

import os
import re
import sys
import time
import uuid
from pathlib import Path
from typing import Annotated

import typer

from octollm.cli.output import JsonOption, emit_json, out, pairs
from octollm.cli.webhook_samples import as_form, sample
from octollm.cli.webhook_signing import sign
from octollm.client import Client
from octollm.errors import WebhooksError
from octollm.settings.files import webhooks_path
from octollm.settings.loader import Settings, load_settings
from octollm.topology.webhook_secrets import read_secret
from octollm.topology.webhooks import Source, load_webhooks

webhook = typer.Typer(no_args_is_help=True, help="Send signed webhooks to test a source.")


@webhook.callback()
def group() -> None:
    """Keep `send` a subcommand: typer would turn a group of one command into the command itself."""


Name = Annotated[str, typer.Argument(metavar="SOURCE", help="A source in webhooks.yaml, for example github.")]
Event = Annotated[str | None, typer.Option(help="The event's name; by default the first event of the source.")]
File = Annotated[
    str | None,
    typer.Option("--file", metavar="FILE", help="The payload, sent unchanged; - is standard input."),
]
Title = Annotated[str | None, typer.Option(help="The title in the sample payload.")]
Body = Annotated[str | None, typer.Option(help="The body in the sample payload.")]
Delivery = Annotated[
    str | None,
    typer.Option(metavar="ID", help="Where the scheme signs an id, two deliveries with the same id are one task."),
]
Form = Annotated[bool, typer.Option("--form", help="Send the payload in a form, as GitHub and Slack can do.")]
Url = Annotated[str | None, typer.Option(help="The address of the reflex; by default the configured one.")]
SecretEnv = Annotated[str | None, typer.Option(metavar="NAME", help="Environment variable with the signing secret.")]
AsJson = Annotated[bool, typer.Option("--json", help=JsonOption)]

_VISIBLE = re.compile(r"[!-~]{1,180}")
_PRINTABLE = re.compile(r"[ -~]{1,180}")


@webhook.command()
def send(
    source: Name,
    *,
    event: Event = None,
    file: File = None,
    title: Title = None,
    body: Body = None,
    delivery: Delivery = None,
    url: Url = None,
    secret_env: SecretEnv = None,
    form: Form = False,
    as_json: AsJson = False,
) -> None:
    """Sign a sample, or the payload in a file, and send it to the reflex."""
    settings = load_settings()
    found = _source(settings, source)
    secret = _secret(source, found, secret_env)
    name = event if event is not None else next(iter(found.events))
    given = {key: value for key, value in (("title", title), ("body", body)) if value is not None}
    if file is not None and given:
        raise typer.BadParameter("a file contains the whole payload: leave out --title and --body", param_hint="--file")
    if delivery is not None and not _VISIBLE.fullmatch(delivery):
        raise typer.BadParameter("must be 1 to 180 visible ASCII characters", param_hint="--delivery")
    if not _PRINTABLE.fullmatch(name):
        raise typer.BadParameter("must be 1 to 180 printable ASCII characters", param_hint="--event")
    identity = delivery if delivery is not None else str(uuid.uuid4())
    payload = sample(found, name, identity, given, form=form) if file is None else _read(file)
    if form and file is not None:
        payload = as_form({"payload": payload})
    headers = sign(found, secret, payload, event=name, delivery=identity, now_s=int(time.time()))
    if form:
        headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    with Client(url or settings.reflex.url, api_key="") as client:  # the signature is the credential
        answer = client.deliver(source, payload, headers)
    if as_json:
        emit_json(answer)
    else:
        out().print(pairs([("delivery", identity), *answer.items()]))


def _source(settings: Settings, name: str) -> Source:
    path = webhooks_path(settings)
    sources = load_webhooks(path)
    if name not in sources:
        known = ", ".join(sources) or "none"
        raise WebhooksError(f"{path} has no source {name}; it has {known}")
    return sources[name]


def _secret(name: str, source: Source, variable: str | None) -> str:
    """Return the secret in `variable` if it is given, else the first secret of the source that is set."""
    if variable is not None:
        found = os.environ.get(variable, "")
        if not found:
            raise WebhooksError(f"the environment variable {variable} is not set; set it to the secret of the source")
        return found
    for place in source.secrets:
        if found := read_secret(place):
            return found
    places = " or ".join(source.secrets)
    raise WebhooksError(
        f"the source {name} has no secret; set the same secret in {places} for the reflex and for this command"
    )


def _read(path: str) -> bytes:
    if path == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise typer.BadParameter("standard input is a terminal; pipe the payload in", param_hint="--file")
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}", param_hint="--file") from error
