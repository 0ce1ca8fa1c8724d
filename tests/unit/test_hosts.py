"""Which hosts a request without a credential may name: the cases of `reflex-rs/src/http/hosts.rs`, and the own ones."""

import pytest

from octollm.api.hosts import AllowedHosts

LOOPBACK = AllowedHosts(loopback=True, url="https://octollm.example.org/")
PUBLIC = AllowedHosts(loopback=False, url="")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:8080", "127.1.2.3", "localhost:1", "LocalHost", "octollm-api:8080", "localhost."),
        *("app.localhost:8080", "[::1]:8080", "octollm.example.org", "OctoLLM.example.org:443"),
    ],
)
def test_local_hosts_are_allowed_on_a_loopback_address(host):
    assert LOOPBACK.allow([host], [])


@pytest.mark.parametrize(
    "host",
    [
        *("evil.test", "evil.test:8080", "127.0.0.1.evil.test", "localhost.evil.test", "10.0.0.1:8080", "[::2]:8080"),
        *("user@127.0.0.1@evil.test", "user@127.0.0.1", "127.0.0.1:x", "127.0.0.1 evil.test", "[127.0.0.1", ""),
    ],
)
def test_foreign_hosts_are_not(host):
    assert not LOOPBACK.allow([host], [])
    assert not LOOPBACK.allow(["localhost", host], [])


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:9"])
def test_a_local_origin_is_allowed(origin):
    assert LOOPBACK.allow(["localhost"], [origin])
    assert LOOPBACK.allow([], [])


@pytest.mark.parametrize("origin", ["null", "http://evil.test:8080", "evil.test", "file://", "localhost", "http:", ""])
def test_a_foreign_origin_is_refused_also_under_a_local_host(origin):
    assert not LOOPBACK.allow(["localhost"], [origin])
    assert not PUBLIC.allow(["octollm.example.org"], [origin])


def test_elsewhere_an_origin_must_be_the_host_that_the_request_is_for():
    assert PUBLIC.allow(["anything.example.org"], [])
    assert PUBLIC.allow(["octollm.example.org"], ["https://octollm.example.org"])
    assert PUBLIC.allow(["octollm.example.org"], ["https://octollm.example.org:443"])
    assert PUBLIC.allow(["10.0.0.1:8081"], ["http://10.0.0.1:8081"])
    assert not PUBLIC.allow(["10.0.0.1:8081"], ["http://10.0.0.1:8082"])
    assert not PUBLIC.allow([], ["http://10.0.0.1:8082"])
