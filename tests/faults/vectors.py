"""A stand-in for a Qdrant server, for machines that have none: its REST calls that memory makes, kept in dictionaries.

It also answers embedding requests, so that memory needs no model. It judges nothing about Qdrant; it is something that
can be unavailable, can hang, and records which points it was given.
"""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIMENSION = 4
_COLLECTION = re.compile(r"/collections/(?P<name>[^/?]+)(?P<rest>/[^?]*)?(\?.*)?")


class VectorServer:
    """Serves on a free port of the loopback address from `start` to `stop`."""

    def __init__(self) -> None:
        self.points: dict[str, dict[str, Any]] = {}
        """Payloads by id, of all collections."""
        self._collections: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = self._http.server_port

    def start(self) -> None:
        """In a thread of its own."""
        threading.Thread(target=self._http.serve_forever, name="vectors", daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        self._http.shutdown()
        self._http.server_close()

    def documents(self) -> dict[str, int]:
        """Points by the document they belong to."""
        found: dict[str, int] = {}
        with self._lock:
            for payload in self.points.values():
                found[payload["document"]] = found.get(payload["document"], 0) + 1
        return found

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON of one request."""
        if path == "/v1/embeddings":
            return 200, _embeddings(body)
        match = _COLLECTION.fullmatch(path)
        if match is None:
            return 404, {"status": {"error": f"no such path: {path}"}}
        with self._lock:
            result = self._asked(method, match["name"], match["rest"] or "", body)
        if result is None:
            return 404, {"status": {"error": f"not found, or not a call that memory makes: {method} {path}"}}
        return 200, {"result": result, "status": "ok", "time": 0.0}

    def _asked(self, method: str, name: str, rest: str, body: Any) -> Any:
        match method, rest:
            case "GET", "/exists":
                return {"exists": name in self._collections}
            case "GET", "" if name in self._collections:
                return _information(self._collections[name], len(self.points))
            case "PUT", "":
                self._collections[name] = body
                return True
            case "PUT", "/points":
                self.points |= {str(point["id"]): point["payload"] for point in body["points"]}
            case "POST", "/points/delete":
                self.points = {key: one for key, one in self.points.items() if not _meant(body["filter"], one)}
            case _ if (method, rest) != ("PUT", "/index"):
                return None
        return {"operation_id": 0, "status": "completed"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, body = server.answer(self.command, self.path, json.loads(raw) if raw else None)
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = _serve  # noqa: N815  the library's names

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


def _meant(filter_: dict[str, Any], payload: dict[str, Any]) -> bool:
    return all(payload.get(one["key"]) == one["match"]["value"] for one in filter_["must"])


def _information(made: dict[str, Any], points: int) -> dict[str, Any]:
    """What Qdrant says of a collection."""
    return {
        "status": "green",
        "optimizer_status": "ok",
        "points_count": points,
        "segments_count": 1,
        "config": {
            "params": {"vectors": made["vectors"]},
            "hnsw_config": {"m": 0, "ef_construct": 100, "full_scan_threshold": 10_000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "metadata": made.get("metadata"),
        },
        "payload_schema": {},
    }


def _embeddings(asked: dict[str, Any]) -> dict[str, Any]:
    """A text's vector is made of its length: enough to be stored."""
    rows = [[float(len(text)), *[1.0] * (DIMENSION - 1)] for text in asked["input"]]
    data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)]
    return {"object": "list", "data": data, "model": asked["model"], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
