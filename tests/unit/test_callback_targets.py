"""Where callbacks may be sent: the form of URLs, the classes of addresses, the rules of callbacks.yaml."""

import socket
from collections.abc import Sequence

import pytest

from octollm.callbacks.addresses import is_allowed, parse_networks
from octollm.callbacks.http import _retry_after_s
from octollm.callbacks.target import ForbiddenTargetError, Resolver, TargetFinder
from octollm.contracts.callback_url import parse_callback_url
from octollm.topology.callbacks import Network

PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
PRIVATE = [
    "0.0.0.0",  # noqa: S104  not bound
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address):
    assert is_allowed(address, ())


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_not_allowed(address):
    assert not is_allowed(address, ())


def test_a_network_that_is_named_is_allowed_in_each_of_its_forms():
    networks = parse_networks(["10.1.0.0/16", "fd00::/8"])
    assert is_allowed("10.1.2.3", networks)
    assert is_allowed("::ffff:10.1.2.3", networks)
    assert is_allowed("fd00::1", networks)
    assert not is_allowed("10.2.0.1", networks)


@pytest.mark.parametrize(
    ("text", "host", "port", "target"),
    [
        ("https://example.com", "example.com", 443, "/"),
        ("https://EXAMPLE.com:8443/a/b?c=d", "example.com", 8443, "/a/b?c=d"),
        ("http://example.com?x=1", "example.com", 80, "/?x=1"),
        ("https://[2606:4700::1111]/x", "2606:4700::1111", 443, "/x"),
        ("https://example.com/@/%2e%2e/", "example.com", 443, "/@/%2e%2e/"),
    ],
)
def test_a_url_is_taken_apart(text, host, port, target):
    found = parse_callback_url(text)
    assert (found.host, found.port, found.target) == (host, port, target)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "HTTPS://example.com/",
        "https:///path",
        "https://",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://example.com/#part",
        "https://example.com\\@127.0.0.1/",
        "https://example.com/a\\b",
        "https://example.com/a b",
        "https://example.com/\n",
        "\thttps://example.com/",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:/x:y:z@w#",
        "https://ex\u00e4mple.com/",
        "https://\u2460\u2461\u2466.0.0.1/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://127.0.0.1%2f@example.com/",
        "https://example.com/" + "a" * 1701,
        # The system's resolver raises UnicodeError for these.
        "https://example..com/",
        "https://.example.com/",
        "https://./",
        "https://" + "a" * 64 + ".com/",
        "https://" + "a." * 127 + "com/",
    ],
)
def test_an_unusual_url_is_refused_and_not_quoted(text):
    with pytest.raises(ValueError, match="must") as error:
        parse_callback_url(text)
    assert "secret" not in str(error.value)


def finder(*addresses: str, **network: object) -> TargetFinder:
    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return TargetFinder(Network.model_validate(network), resolve)


async def test_a_public_host_is_found_with_its_addresses():
    target = await finder("93.184.216.34").find("https://example.com/x")
    assert target.addresses == ("93.184.216.34",)


@pytest.mark.parametrize(
    ("url", "addresses", "reason"),
    [
        ("https://example.com/", ("127.0.0.1",), "not public"),
        ("https://example.com/", ("93.184.216.34", "10.0.0.1"), "not public"),
        ("http://example.com/", ("93.184.216.34",), "only be called over https"),
        ("https://example.com:22/", ("93.184.216.34",), "port 22"),
        ("https://other.example/", ("93.184.216.34",), "not among the tenant's hosts"),
        ("https://user@example.com/", ("93.184.216.34",), "without user"),
    ],
)
async def test_a_forbidden_target_is_refused_with_the_reason(url, addresses, reason):
    with pytest.raises(ForbiddenTargetError, match=reason):
        await finder(*addresses).find(url, ["example.com"])


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "0", "localhost", "[::1]"]
)
async def test_each_spelling_of_a_loopback_address_is_refused(host):
    """Whatever the resolver makes of a spelling, the address that it names is checked."""

    async def resolve(name: str, port: int) -> Sequence[str]:
        return [str(one[4][0]) for one in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]

    with pytest.raises((ForbiddenTargetError, OSError)):
        await TargetFinder(Network(), resolve).find(f"https://{host}/")


async def test_exceptions_are_named_in_the_file():
    made = finder("10.1.2.3", ports=[80], http_hosts=["inside.example"], private_networks=["10.1.0.0/16"])
    assert (await made.find("http://inside.example/")).addresses == ("10.1.2.3",)


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64])
async def test_what_is_no_name_has_no_address(host):
    resolver = Resolver(1)
    with pytest.raises(OSError, match="no host name"):
        await resolver(host, 443)
    resolver.close()


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-1",
        "1.5",
        "Fri, 31 Dec 9999 23:59:59 -2300",
        "9" * 400,
        "\u0661",
    ],
)
def test_a_pause_that_cannot_be_understood_is_none(value):
    assert _retry_after_s(value) is None
