"""What a receiver, a name server or a URL can do to the process that sends callbacks: nothing."""

import asyncio
import itertools
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.callbacks import (
    SECRET,
    attempted,
    ended,
    in_state,
    orchestrator_with,
    receiver,
    rules,
    sending,
    stored,
)
from tests.helpers.scripted_server import Answer, serving
from tests.helpers.waiting import until

OK = Answer.json({"ok": True})


@pytest.fixture(autouse=True)
def secrets(monkeypatch) -> None:
    monkeypatch.setenv("TEST_CALLBACK_SECRET", SECRET)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0.0.0.0",  # noqa: S104  not bound
        "[::1]",
        "[::ffff:127.0.0.1]",
    ],
)
async def test_no_spelling_of_this_host_is_reached(pool, book, host):
    async with serving(OK) as server:
        port = server.url.rpartition(":")[2]
        known = rules(f"http://{host}:{port}/", http_hosts=[host.strip("[]")], private_networks=[], ports=[int(port)])
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known):
            row = await attempted(pool)
        assert server.requests == []
    assert row["outcome"] in {"forbidden", "unreachable"}
    if row["outcome"] == "forbidden":
        assert row["state"] == "failed"
        assert "not public" in row["detail"]


async def test_a_name_is_resolved_once_and_the_connection_goes_to_the_checked_address(pool, book):
    """A name server that answers with another address the second time (DNS rebinding)."""
    answers = itertools.chain([["127.0.0.1"]], itertools.repeat(["169.254.169.254"]))
    asked = []

    async def rebinding(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return next(answers)

    async with serving(OK) as server:
        port = server.url.rpartition(":")[2]
        known = rules(f"http://receiver.example:{port}/x")
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known, resolve=rebinding):
            await in_state(pool, "delivered")
        (request,) = server.requests
    assert asked == ["receiver.example"]
    assert request.headers["host"] == f"receiver.example:{port}"


async def test_a_redirect_is_not_followed(pool, book):
    async with serving(OK) as inner, serving(Answer(307, headers={"Location": inner.url})) as outer:
        known = rules(outer.url, inner.url)
        known = known.model_copy(update={"endpoints": {"e0": known.endpoints["e0"]}})
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known):
            row = await attempted(pool)
        assert inner.requests == []
    assert (row["outcome"], row["status"]) == ("refused", 307)
    assert "redirects are not followed" in row["detail"]


async def test_proxies_of_the_environment_are_not_used(pool, book, monkeypatch):
    async with serving(Answer(500)) as proxy, serving(OK) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        known = rules(server.url)
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known):
            await in_state(pool, "delivered")
        assert proxy.requests == []


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
async def test_an_endless_body_is_cut(pool, book, head):
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        chunk = b"y" * 65_536
        while True:
            writer.write(b"10000\r\n" + chunk + b"\r\n" if b"chunked" in head else chunk)
            await writer.drain()

    async with receiver(endless) as url:
        known = rules(url)
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known):
            (row,) = await in_state(pool, "delivered")
    assert row["response"] == "y" * 1024


async def test_an_answer_that_goes_on_slowly_counts_by_its_status(pool, book):
    async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        await writer.drain()
        await reader.read()

    async with receiver(dripping) as url:
        known = rules(url)
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known):
            (row,) = await in_state(pool, "delivered")
    assert row["response"] == "x"


async def test_endless_headers_are_cut(pool, book):
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-More: " + b"z" * 1000 + b"\r\n")
            await writer.drain()

    async with receiver(endless) as url:
        known = rules(url)
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known):
            row = await attempted(pool)
    assert row["outcome"] == "unreachable"


async def test_the_certificate_has_to_be_that_of_the_name(pool, book, tmp_path):
    authority, good, bad = _certificates(tmp_path)
    trusted = ssl.create_default_context(cafile=str(authority))

    async def fine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 OK\r\n\r\n")
        await writer.drain()

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    for certificate, outcome in ((good, "delivered"), (bad, "unreachable")):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        async with receiver(fine, context) as url:
            known = rules(url.replace("127.0.0.1", "receiver.example"))
            await ended(orchestrator_with(pool, book, known))
            async with sending(pool, known, resolve=resolve, tls=trusted):
                await until_outcome(pool, outcome)


async def until_outcome(pool, outcome: str) -> None:
    async def reached() -> bool:
        return (await stored(pool))[-1]["outcome"] == outcome

    await until(reached, f"the outcome {outcome}")


def _certificates(folder: Path) -> tuple[Path, Path, Path]:
    """An authority, a certificate for receiver.example and one for another name."""
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    def run(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

    authority = folder / "ca.crt"
    run("req", "-x509", *ec, "-keyout", folder / "ca.key", "-out", authority, "-days", "2", "-subj", "/CN=ca")
    made = []
    for name in ("receiver.example", "other.example"):
        key, request, certificate = (folder / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
        names = folder / f"{name}.names"
        names.write_text(f"subjectAltName=DNS:{name}\n")
        run("req", *ec, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        run("x509", "-req", "-CA", authority, "-CAkey", folder / "ca.key", "-in", request, "-out", certificate,
            "-days", "2", "-extfile", names)  # fmt: skip
        made.append(certificate)
    return authority, made[0], made[1]
