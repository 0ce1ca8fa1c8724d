"""Finds out where exactly a callback is sent.

The URL's host is resolved once, and the addresses are checked. The connection then goes to one of these addresses,
never to the name: a second resolution could answer differently (DNS rebinding).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from octollm.callbacks.addresses import is_allowed, parse_networks
from octollm.contracts.callback_url import CallbackUrl, parse_callback_url
from octollm.errors import OctoError
from octollm.topology.callbacks import Network

_MAX_ADDRESSES = 4
"""Addresses of one host that are tried."""
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a host, for a port. Raises OSError."""


class ForbiddenTargetError(OctoError):
    """Callbacks must not be sent there."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL and the checked addresses of its host."""

    url: CallbackUrl
    addresses: tuple[str, ...]


class Resolver:
    """Resolves names on threads of its own.

    A name server that does not answer holds up only its own callbacks.
    """

    def __init__(self, threads: int) -> None:
        """`threads`: how many names may be resolved at the same time."""
        self._threads = ThreadPoolExecutor(threads, "resolve")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the host's addresses. Raises OSError if there are none."""
        try:
            found = await asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            )
        except UnicodeError as error:
            raise OSError(f"{host} is no host name") from error
        return list(dict.fromkeys(str(one[4][0]) for one in found))

    def close(self) -> None:
        """Do not wait for names that are still being resolved."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class TargetFinder:
    """Applies the rules of `callbacks.yaml`'s section `network`."""

    def __init__(self, network: Network, resolve: Resolve) -> None:
        """`resolve`: by default the system's resolver, see `Resolver`."""
        self._ports = frozenset(network.ports)
        self._http_hosts = frozenset(network.http_hosts)
        self._private_networks = parse_networks(network.private_networks)
        self._resolve = resolve

    async def find(self, text: str, hosts: Sequence[str] = ()) -> Target:
        """Return where a callback to the URL `text` is sent.

        `hosts`: the only hosts allowed; empty: any. Raises OSError if the host cannot be resolved, and
        ForbiddenTargetError, which does not quote path or query.
        """
        try:
            url = parse_callback_url(text)
        except ValueError as error:
            raise ForbiddenTargetError(f"the URL {error}") from error
        self._check(url, hosts)
        addresses = tuple(await self._resolve(url.host, url.port))
        if not addresses:
            raise OSError(f"{url.host} has no address")
        for address in addresses:
            if not is_allowed(address, self._private_networks):
                raise ForbiddenTargetError(
                    f"{url.host} has the address {address}, which is not public; "
                    "add its network to network.private_networks in callbacks.yaml if callbacks may be sent there"
                )
        return Target(url, addresses[:_MAX_ADDRESSES])

    def _check(self, url: CallbackUrl, hosts: Sequence[str]) -> None:
        if hosts and url.host not in hosts:
            raise ForbiddenTargetError(f"{url.host} is not among the tenant's hosts in callbacks.yaml")
        if url.scheme != "https" and url.host not in self._http_hosts:
            raise ForbiddenTargetError(
                f"{url.host} may only be called over https; network.http_hosts in callbacks.yaml lists the exceptions"
            )
        if url.port not in self._ports:
            raise ForbiddenTargetError(f"port {url.port} is not among network.ports in callbacks.yaml")
