"""TCP ports on loopback for the servers of one embedded stack.

Owns the choice, and that two stacks never choose the same one: between the choice and the moment a server
binds its port passes a while in which the port still looks free. For the same reason it is none of those that the
kernel hands out: until the server is there, and whenever it is down for a moment, such a port may become some
connection's own end, even that of a client which tries to reach the server and so reaches itself.
"""

import secrets
import socket
from contextlib import ExitStack
from pathlib import Path

LOOPBACK = "127.0.0.1"
_TRIES = 50
_HANDED_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 20_000
"""Below it are the ports that servers are known by."""
_FEWEST = 1000
"""So many there have to be to choose from."""


class Ports(ExitStack):
    """The ports of one stack, kept from other stacks until the context ends."""

    def take(self, wanted: int = 0, host: str = LOOPBACK) -> int:
        """The wanted port, or any free one when it is 0 or taken."""
        if wanted and self.take_exactly(wanted, host):
            return wanted
        for _ in range(_TRIES):
            port = _some_port(host)
            if self.take_exactly(port, host):
                return port
        raise OSError(f"no free port was found on {host}")

    def take_exactly(self, port: int, host: str = LOOPBACK) -> bool:
        """Whether the port could be had."""
        claim = socket.socket(socket.AF_UNIX)
        try:
            # An abstract name: no file, the kernel releases it when this process ends, however it ends.
            claim.bind(f"\0octollm-port-{port}")
        except OSError:
            claim.close()
            return False
        if not _is_free(port, host):
            claim.close()
            return False
        self.enter_context(claim)
        return True


def _is_free(port: int, host: str) -> bool:
    """Whether a server could bind this port now."""
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)  # with SO_REUSEADDR only this finds a listener on the port
        except OSError:
            return False
        return True


def _some_port(host: str) -> int:
    """One that the kernel hands to nobody; where it hands out nearly all, one that it hands out now."""
    choice = int(_HANDED_OUT.read_text().split()[0]) - _LOWEST
    if choice >= _FEWEST:
        return _LOWEST + secrets.randbelow(choice)
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
