"""Callbacks of `octollm up`: to a receiver of the submission's choice, and to a verifier that is not ours in Python."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from octollm.client.callbacks import verify
from tests.helpers.programs import octollm, up
from tests.helpers.waiting import until_sync

SECRET, OTHER = ("whsec_" + base64.b64encode(bytes([number]) * 24).decode() for number in (1, 2))


class Receiver(ThreadingHTTPServer):
    """Keeps what it receives, and answers 500 to the first callback."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((dict(self.headers.items()), body))
        self.send_response(204 if len(self.server.received) > 1 else 500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        """Requests are kept instead."""


@contextmanager
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def written(path: Path, content: object) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_a_producer_is_notified_and_the_reflex_accepts_the_signature(tmp_path, unused_tcp_port):
    port = unused_tcp_port
    with receiver() as server:
        sources = f"http://127.0.0.1:{port}/v1/webhooks"
        mapping = {"other.v1": {"kind": "note", "goal": "unused", "input": {}}}
        source = {"description": "d", "scheme": "standard", "tenant": "default", "events": mapping}
        webhooks = {name: {**source, "secrets": [f"env:{name.upper()}"]} for name in ("right", "wrong")}
        endpoint = {"description": "d", "tenant": "default", "secrets": ["env:RIGHT"], "kinds": ["note"]}
        callbacks = {
            "version": 1,
            "network": {
                "ports": [port, server.server_port],
                "http_hosts": ["127.0.0.1"],
                "private_networks": ["127.0.0.0/8"],
            },
            "tenants": {"default": {"secrets": ["env:RIGHT"]}},
            "endpoints": {name: {**endpoint, "url": f"{sources}/{name}"} for name in webhooks},
        }
        environment = {
            "OCTOLLM_CALLBACKS_FILE": written(tmp_path / "callbacks.yaml", callbacks),
            "OCTOLLM_WEBHOOKS_FILE": written(tmp_path / "webhooks.yaml", {"version": 1, "sources": webhooks}),
            "RIGHT": SECRET,
            "WRONG": OTHER,
        }
        with up(tmp_path, "--port", str(port), **environment) as stack:
            url = f"http://127.0.0.1:{server.server_port}/done?to=ada@example.org"
            note = {"goal": "keep it", "kind": "note", "input": {"text": "x"}, "callback": {"url": url}}
            task = stack.submit(note).json()["task"]
            until_sync(lambda: len(server.received) == 2, "the second attempt")
            address = {"OCTOLLM_REFLEX_URL": stack.http}

            def listed() -> dict[str, Any]:
                found = json.loads(octollm("callbacks", "ls", "--task", task, "--json", **address).stdout)["items"]
                return {item["endpoint"].rpartition("/")[2]: item for item in found if item.get("outcome")}

            outcomes = until_sync(
                lambda: found if len(found := listed()) == 3 and found["done"]["state"] == "delivered" else None,
                "three callbacks",
            )
            # The reflex checks the signature first, and answers 200 to an event that its source does not map.
            assert (outcomes["right"]["outcome"], outcomes["right"]["status"]) == ("delivered", 200)
            assert (outcomes["wrong"]["outcome"], outcomes["wrong"]["status"]) == ("refused", 401)
            again = octollm("callbacks", "redeliver", str(outcomes["done"]["id"]), **address)
            assert again.returncode == 0, again.stderr
            until_sync(lambda: len(server.received) == 3, "the redelivered callback")
    for headers, body in server.received:
        found = verify(headers, body, [SECRET])
        assert (found.id, found.data["task"], found.data["state"]) == (f"{task}.1", task, "succeeded")
