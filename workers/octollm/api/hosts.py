"""Which hosts a request without a credential may name. Pure.

The reflex has the same rules in `http/hosts.rs`.

A web page can make a browser send requests to a loopback address under a name of its own (DNS rebinding), or to any
address from a page of another host. Such a request names a foreign host in `Host` or `Origin`.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

_AUTHORITY = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s\[\]:@/?#\\]+)(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)", re.IGNORECASE)
_SINGLE_LABEL = re.compile(r"[a-z0-9_-]+")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class AllowedHosts:
    """The rule for one listener."""

    def __init__(self, *, loopback: bool, url: str) -> None:
        """`loopback`: it can be reached from this host only; `url`: how other programs find it, may be empty."""
        self._loopback = loopback
        self._own = (urlsplit(url).hostname or "").lower()

    def allow(self, hosts: Sequence[str], origins: Sequence[str]) -> bool:
        """Whether a request may have these values of `Host` and `Origin`.

        On a loopback address both must be local. Elsewhere an origin must be the host that the request is for. A
        request that names none is no browser's.
        """
        named = [_authority(host) for host in hosts]
        sources = [_origin(origin) for origin in origins]
        if self._loopback:
            return all(one is not None and self._is_local(one[0]) for one in (*named, *sources))
        return all(source is not None and _same(source, named) for source in sources)

    def _is_local(self, host: str) -> bool:
        try:
            if ipaddress.ip_address(host.strip("[]")).is_loopback:
                return True
        except ValueError:
            pass
        name = host.removesuffix(".")
        # Nobody can register a name without a dot, so no page can have it.
        return host == self._own or bool(_SINGLE_LABEL.fullmatch(name)) or name.endswith(".localhost")


def _authority(text: str) -> tuple[str, str | None] | None:
    """Return host, in lower case, and port of a `Host` header; None if it is none."""
    found = _AUTHORITY.fullmatch(text)
    return None if found is None else (found[1].lower(), found[2])


def _origin(text: str) -> tuple[str, str | None] | None:
    """Return host and port of an `Origin` header; None if it is none.

    The port that its scheme implies is left out.
    """
    found = _ORIGIN.fullmatch(text)
    authority = None if found is None else _authority(found[2])
    if found is None or authority is None:
        return None
    host, port = authority
    return host, None if port == _DEFAULT_PORTS.get(found[1].lower()) else port


def _same(source: tuple[str, str | None], named: Iterable[tuple[str, str | None] | None]) -> bool:
    host, port = source
    return any(
        one is not None and one[0] == host and (one[1] if one[1] not in {"80", "443"} else None) == port
        for one in named
    )
