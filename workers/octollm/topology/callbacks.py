"""`callbacks.yaml` as frozen objects.

They say who is notified when a task has ended, and where callbacks may be sent.
"""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from octollm.contracts.callback_url import parse_callback_url
from octollm.errors import CallbacksError, WebhooksError
from octollm.topology import strict_yaml
from octollm.topology.webhook_secrets import read_secret, standard_key
from octollm.topology.webhooks import Secret

CallbackState = Literal["succeeded", "failed", "rejected", "cancelled", "expired"]
"""How a task can end."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_TENANT = r"\A[a-z0-9][a-z0-9_-]{0,62}\z"
_ALL_STATES: tuple[CallbackState, ...] = ("succeeded", "failed", "rejected", "cancelled", "expired")


def _url(text: str) -> str:
    parse_callback_url(text)
    return text


def _network(text: str) -> str:
    ipaddress.ip_network(text)
    return text


Url = Annotated[str, AfterValidator(_url)]
Host = Annotated[str, Field(pattern=r"\A[a-z0-9._:-]{1,253}\z")]
Cidr = Annotated[str, AfterValidator(_network)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Network(_Closed):
    """Where callbacks may be sent. Public addresses over HTTPS always may, on these ports."""

    ports: Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], Field(strict=False)] = (443,)
    http_hosts: Annotated[tuple[Host, ...], Field(strict=False)] = ()
    """Hosts that may be called without TLS."""
    private_networks: Annotated[tuple[Cidr, ...], Field(strict=False)] = ()
    """Networks that are not public and may be called all the same."""


class TenantCallbacks(_Closed):
    """What signs the callbacks to URLs that a tenant's submissions name."""

    secrets: Annotated[tuple[Secret, ...], Field(strict=False)]
    hosts: Annotated[tuple[Host, ...], Field(strict=False)] = ()
    """The only hosts that submissions may name; empty: any."""


class CallbackEndpoint(_Closed):
    """A receiver that is notified of every task of a tenant that matches; its name tells it from others."""

    description: str
    tenant: Annotated[str, Field(pattern=_TENANT)]
    url: Url
    secrets: Annotated[tuple[Secret, ...], Field(strict=False)]
    kinds: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Empty: every kind."""
    states: Annotated[tuple[CallbackState, ...], Field(strict=False)] = _ALL_STATES

    def wants(self, tenant: str, kind: str | None, state: str) -> bool:
        """Whether the end of such a task is reported to this endpoint."""
        return self.tenant == tenant and state in self.states and (not self.kinds or kind in self.kinds)


class CallbackRules(_Closed):
    """The whole file."""

    version: int
    network: Network = Network()
    tenants: Mapping[Annotated[str, Field(pattern=_TENANT)], TenantCallbacks]
    endpoints: Mapping[str, CallbackEndpoint]


def load_callbacks(path: Path) -> CallbackRules:
    """Read `path`. Raises CallbacksError that says what to change."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CallbacksError(
            f"{path}: cannot be read ({error}); set OCTOLLM_CALLBACKS_FILE to a file of callbacks"
        ) from error
    try:
        return _parse(text)
    except CallbacksError as error:
        raise CallbacksError(f"{path}: {error}") from error


def signing_keys(secrets: tuple[str, ...]) -> list[bytes]:
    """Return the keys of the secrets that are set, in order.

    Raises CallbacksError for one that is weak or malformed.
    """
    try:
        return [standard_key(secret) for secret in map(read_secret, secrets) if secret]
    except WebhooksError as error:
        raise CallbacksError(str(error)) from error


def unusable_secrets(rules: CallbackRules) -> list[str]:
    """Return a sentence for each endpoint or tenant whose secrets cannot be used or are not set."""
    found = []
    owners = {f"tenants.{name}": one.secrets for name, one in rules.tenants.items()}
    owners |= {f"endpoints.{name}": one.secrets for name, one in rules.endpoints.items()}
    for owner, secrets in owners.items():
        try:
            problem = "" if signing_keys(secrets) else f"no secret is set in {' or '.join(secrets)}"
        except CallbacksError as error:
            problem = str(error)
        if problem:
            found.append(f"{owner}: {problem}")
    return found


def _parse(text: str) -> CallbackRules:
    try:
        rules = CallbackRules.model_validate(strict_yaml.load(text))
    except strict_yaml.YAMLError as error:
        raise CallbacksError(f"not valid YAML: {error}") from error
    except ValidationError as error:
        raise CallbacksError(strict_yaml.explain(error.errors(include_url=False)[0])) from error
    if rules.version != 1:
        raise CallbacksError(f"version: is {rules.version}, this program reads version 1")
    for name, endpoint in rules.endpoints.items():
        if not _NAME.fullmatch(name):
            raise CallbacksError(
                f"endpoints.{name}: is no name; use a lower-case letter, then letters, digits, _ and -"
            )
        if not endpoint.states:
            raise CallbacksError(f"endpoints.{name}.states: must name at least one, or be left out")
        _check_secrets(f"endpoints.{name}", endpoint.secrets)
    for name, tenant in rules.tenants.items():
        _check_secrets(f"tenants.{name}", tenant.secrets)
    return rules


def _check_secrets(at: str, secrets: tuple[str, ...]) -> None:
    if not secrets:
        raise CallbacksError(f"{at}.secrets: must name at least one, like env:CALLBACK_SECRET")
