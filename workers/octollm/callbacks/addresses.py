"""Decides which IP addresses callbacks may be sent to. Pure.

A producer chooses the URL, so it must not reach what only this host can reach: services on the loopback address and in
private networks, and the metadata services of clouds.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Azure's host agent has a public address that every virtual machine can reach.
_HOST_AGENTS = frozenset({IPv4Address("168.63.129.16")})


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks written as CIDR. Raises ValueError."""
    return tuple(ip_network(text) for text in texts)


def is_allowed(text: str, private_networks: Iterable[Network]) -> bool:
    """Whether callbacks may be sent to the address `text`, as the resolver wrote it.

    `private_networks`: networks that are allowed although they are not public.
    """
    address = _innermost(ip_address(text.partition("%")[0]))
    return _is_public(address) or any(address in network for network in private_networks)


def _innermost(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for: mapped, NAT64 or 6to4."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
        if address.sixtofour is not None:
            return address.sixtofour
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast and address not in _HOST_AGENTS
