"""The OpenAI embedder: the real SDK against a server on a real socket."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import orjson
import pytest

from octollm.errors import EmbeddingError, StoreUnavailableError
from octollm.memory.embed.openai import OpenAiEmbedder

Answer = tuple[int, Any]


class EmbeddingServer:
    """Answers what `reply` makes of a request; keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.reply: Callable[[dict[str, Any]], Answer] = embeddings
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                request = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(request)
                outer.keys.append(self.headers["Authorization"])
                status, body = outer.reply(request)
                content = body if isinstance(body, bytes) else orjson.dumps(body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


def embeddings(request: dict[str, Any]) -> Answer:
    """Of each text its length and a one, turned round, as the API allows."""
    size = request.get("dimensions", 3)
    rows = [[float(len(text)), 1.0, *[0.0] * (size - 2)] for text in request["input"]]
    data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return 200, {"object": "list", "data": data[::-1], "model": request["model"], "usage": usage}


def refusal(status: int, message: str = "no", code: str | None = None) -> Callable[[dict[str, Any]], Answer]:
    return lambda _request: (status, {"error": {"message": message, "type": "t", "param": None, "code": code}})


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    made = EmbeddingServer()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


@pytest.fixture
async def embedder(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
    made = OpenAiEmbedder("some-model", 4, server.url)
    yield made
    await made.close()


async def test_vectors_come_back_in_order_with_length_one(server, embedder):
    vectors = await embedder.embed(["abc", "", "a" * 7])
    assert vectors == pytest.approx(np.array([[3, 1, 0, 0], [1, 1, 0, 0], [7, 1, 0, 0]]) / np.sqrt([[10], [2], [50]]))
    (request,) = server.requests
    assert (request["model"], request["dimensions"], request["encoding_format"]) == ("some-model", 4, "float")
    assert server.keys == ["Bearer key-of-the-test"]
    assert embedder.name == "openai/some-model"
    assert (await embedder.embed([])).shape == (0, 4)


async def test_many_and_long_texts_are_sent_in_several_requests(server, embedder):
    texts = [str(n) for n in range(300)] + ["x" * 200_000, "y" * 200_000]
    vectors = await embedder.embed(texts)
    assert [len(request["input"]) for request in server.requests] == [128, 128, 45, 1]
    assert vectors[:, 0] == pytest.approx([len(text) / np.hypot(len(text), 1) for text in texts])


async def test_a_server_that_takes_no_dimension_is_asked_without(server, embedder):
    def fussy(request):
        return refusal(400, "this model has no Dimensions")(request) if "dimensions" in request else embeddings(request)

    server.reply = fussy
    with pytest.raises(EmbeddingError, match=r"vectors of 3 dimensions, not 4; set embedding\.dimension to 3"):
        await embedder.embed(["a"])
    with pytest.raises(EmbeddingError):
        await embedder.embed(["a"])
    assert ["dimensions" in request for request in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        (refusal(429), StoreUnavailableError, "429 for now"),
        (refusal(503), StoreUnavailableError, "503 for now"),
        (refusal(429, code="insufficient_quota"), EmbeddingError, "no money left"),
        (refusal(401, "bad key-of-the-test"), EmbeddingError, "check OPENAI_API_KEY"),
        (refusal(404), EmbeddingError, r"check embedding\.url and model"),
        (refusal(400, "too long"), EmbeddingError, "refused the texts: too long"),
        (refusal(422, "odd"), EmbeddingError, "422: odd"),
        (lambda _request: (200, b"<html>"), EmbeddingError, "no list of embeddings"),
        (lambda _request: (200, {"data": []}), EmbeddingError, "0 vectors for 1 texts"),
        (lambda _request: (200, {"unknown": 1}), EmbeddingError, "no list of embeddings"),
        (lambda _request: (200, [1]), EmbeddingError, "no list of embeddings"),
        (lambda _request: (200, {"data": [{"index": 0}]}), EmbeddingError, "no list of embeddings"),
        (lambda _request: (200, {"data": [{"index": 0, "embedding": [0, 0, 0, 0]}]}), EmbeddingError, "direction"),
        (
            lambda _request: (200, {"data": [{"index": 0, "embedding": "AAAA"}]}),
            EmbeddingError,
            "no list of embeddings",
        ),
        (
            lambda _request: (200, {"data": [{"index": 0, "embedding": ["a"] * 4}]}),
            EmbeddingError,
            "no list of embeddings",
        ),
    ],
)
async def test_what_the_server_does_wrong_is_reported_and_never_repeated_here(server, embedder, reply, error, says):
    server.reply = reply
    with pytest.raises(error, match=says) as caught:
        await embedder.embed(["a"])
    assert "key-of-the-test" not in str(caught.value)
    assert len(server.requests) == 1


async def test_a_server_that_is_unavailable_is_not_ready(unused_tcp_port, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{unused_tcp_port}")
    embedder = OpenAiEmbedder("some-model", 4)
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        await embedder.embed(["a"])
    await embedder.close()


async def test_half_a_surrogate_pair_is_refused(embedder):
    with pytest.raises(EmbeddingError, match="no Unicode"):
        await embedder.embed(["\ud800"])
