"""A server of scripted answers on a real socket, in the wire formats of both providers, for the real SDKs.

It speaks Anthropic's Messages (`/v1/messages`), OpenAI's Responses (`/responses`) and Chat Committer
(`/chat/completions`), streamed and, where a request does not stream, whole. Answers come from a script, first in first
out: a request without one gets 500 and fails the test at the end, and so does a step that nobody asked for.
What it answers is made up: it shows that the pipeline is right, never how good a model is.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self


@dataclass(frozen=True)
class Say:
    """An answer, streamed in pieces."""

    text: str
    stop: Literal["end", "max_tokens", "refusal", "pause", "context"] = "end"
    input: int = 11
    """Tokens as the provider counts them; `read` and `written` next to or inside, as it does."""
    output: int = 7
    read: int = 0
    written: int = 0
    after: int = 0
    """It waits until that many requests have come: how two are made to overlap."""


@dataclass(frozen=True)
class Refuse:
    """A status instead of an answer."""

    status: int
    kind: str = "api_error"
    said: str = "no"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Break:
    """An answer that begins with status 200 and `text`, and then goes wrong."""

    how: Literal["overloaded", "stall", "cut", "truncated_json", "ends_early", "failed"]
    text: str = "The beginn"


Step = Say | Refuse | Break


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class MockModels:
    """`async with MockModels() as server: server.script(Say("hello"))`; `server.url` goes into the base URL."""

    def __init__(self, otherwise: Step | None = None) -> None:
        """`otherwise`: the answer to every request that the script has none for."""
        self._otherwise = otherwise
        self.requests: list[Asked] = []
        self.hung_up = asyncio.Event()
        """A client closed its connection before its answer was complete."""
        self._steps: deque[Step] = deque()
        self._problems: list[str] = []

    def script(self, *steps: Step) -> None:
        self._steps.extend(steps)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, kind: object, *_rest: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        if kind is None:
            assert not self._problems, self._problems
            assert not self._steps, f"never asked for: {list(self._steps)}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await _read(reader)
            self.requests.append(asked)
            step = self._steps.popleft() if self._steps else self._otherwise
            if step is None:
                step = Refuse(500)
                self._problems.append(f"nothing scripted for request {len(self.requests)}")
            try:
                await self._answer(asked, step, reader, writer)
            except (KeyError, AssertionError) as error:
                self._problems.append(f"request {len(self.requests)} is none a server would take: {error!r}")
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        writer.close()

    async def _answer(
        self, asked: Asked, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        wire = _wire(asked)
        while isinstance(step, Say) and len(self.requests) < step.after:
            await asyncio.sleep(0.01)
        if isinstance(step, Refuse):
            _head(writer, step.status, step.headers | {"content-type": "application/json"})
            _chunk(writer, json.dumps(wire.error(step)))
            await _end(writer)
        elif not asked.body.get("stream"):
            assert isinstance(step, Say), "only streams can break"
            _head(writer, 200, {"content-type": "application/json"})
            _chunk(writer, json.dumps(wire.whole(step)))
            await _end(writer)
        else:
            _head(writer, 200, {"content-type": "text/event-stream"})
            said = step if isinstance(step, Say) else Say(step.text)
            *most, last = wire.stream(said)
            for event in most:
                _chunk(writer, event)
            await writer.drain()
            match step:
                case Say():
                    _chunk(writer, last)
                    await _end(writer)
                case Break(how="stall"):
                    # Nothing more comes; the only way out is the client's.
                    await reader.read()
                    self.hung_up.set()
                case Break(how="cut"):
                    writer.transport.abort()
                case Break(how="ends_early"):
                    await _end(writer)
                case Break(how="truncated_json"):
                    _chunk(writer, last[: len(last) // 2].rstrip() + "\n\n")
                    await _end(writer)
                case Break(how=how):
                    _chunk(writer, wire.broken(how))
                    await _end(writer)


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Asked(head[0].split(" ")[1], headers, json.loads(body))


def _head(writer: asyncio.StreamWriter, status: int, headers: dict[str, str]) -> None:
    fields = headers | {"transfer-encoding": "chunked", "connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    writer.write(f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode())


def _chunk(writer: asyncio.StreamWriter, text: str) -> None:
    data = text.encode()
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _pieces(text: str) -> Iterator[str]:
    size = max(1, len(text) // 3)
    return (text[start : start + size] for start in range(0, len(text), size))


def _event(data: dict[str, Any], *, named: bool = True) -> str:
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {json.dumps(data)}\n\n"


_MESSAGES_STOPS = {
    "end": "end_turn",
    "max_tokens": "max_tokens",
    "refusal": "refusal",
    "pause": "pause_turn",
    "context": "model_context_window_exceeded",
}
_CHAT_STOPS = {"end": "stop", "max_tokens": "length", "refusal": "content_filter"}


class _Messages:
    def __init__(self, body: dict[str, Any]) -> None:
        self.model = body["model"]
        assert body["max_tokens"] > 0
        assert [one["role"] for one in body["messages"]] == ["user", "assistant"] * (len(body["messages"]) // 2) + [
            "user"
        ]

    def error(self, step: Refuse) -> dict[str, Any]:
        return {"type": "error", "error": {"type": step.kind, "message": step.said}}

    def whole(self, step: Say) -> dict[str, Any]:
        usage = {
            "input_tokens": step.input,
            "output_tokens": step.output,
            "cache_read_input_tokens": step.read,
            "cache_creation_input_tokens": step.written,
        }
        content = [{"type": "text", "text": step.text}]
        reported = {"stop_reason": _MESSAGES_STOPS[step.stop], "stop_sequence": None, "usage": usage}
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            **reported,
        }

    def stream(self, step: Say) -> Iterator[str]:
        whole = self.whole(step)
        begun = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
        yield _event({"type": "message_start", "message": begun})
        yield _event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        yield _event({"type": "ping"})
        for piece in _pieces(step.text):
            delta = {"type": "text_delta", "text": piece}
            yield _event({"type": "content_block_delta", "index": 0, "delta": delta})
        yield _event({"type": "content_block_stop", "index": 0})
        ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield _event({"type": "message_delta", "delta": ending, "usage": {"output_tokens": step.output}})
        yield _event({"type": "message_stop"})

    def broken(self, how: str) -> str:
        kind = "overloaded_error" if how == "overloaded" else "api_error"
        return _event({"type": "error", "error": {"type": kind, "message": "Overloaded"}})


class _Responses:
    def __init__(self, body: dict[str, Any]) -> None:
        self.model = body["model"]
        assert body["store"] is False
        form = body.get("text", {}).get("format", {})
        if form.get("type") == "json_object":
            assert any("JSON" in one["content"] for one in body["input"]), "JSON mode wants the word in a message"

    def error(self, step: Refuse) -> dict[str, Any]:
        return {"error": {"type": step.kind, "code": step.kind, "message": step.said, "param": None}}

    def whole(self, step: Say) -> dict[str, Any]:
        usage = {
            "input_tokens": step.input,
            "input_tokens_details": {"cached_tokens": step.read, "cache_write_tokens": step.written},
            "output_tokens": step.output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": step.input + step.output,
        }
        part = {"type": "output_text", "text": step.text, "annotations": []}
        if step.stop == "refusal":
            part = {"type": "refusal", "refusal": step.text}
        message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
        details = {"reason": "max_output_tokens"} if step.stop == "max_tokens" else None
        state = {"status": "incomplete" if details else "completed", "incomplete_details": details, "error": None}
        about = {"id": "resp_1", "object": "response", "created_at": 1, "model": self.model, "usage": usage}
        return {**about, **state, "output": [message], "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}

    def stream(self, step: Say) -> Iterator[str]:
        whole, number = self.whole(step), 0
        yield _event({"type": "response.created", "sequence_number": 0, "response": {**whole, "status": "in_progress"}})
        kind = "refusal" if step.stop == "refusal" else "output_text"
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        for number, piece in enumerate(_pieces(step.text), 1):
            yield _event({"type": f"response.{kind}.delta", "sequence_number": number, "delta": piece, **place})
        ended = "response.incomplete" if whole["incomplete_details"] else "response.completed"
        yield _event({"type": ended, "sequence_number": number + 1, "response": whole})

    def broken(self, how: str) -> str:
        if how == "failed":
            error = {"code": "rate_limit_exceeded", "message": "slow down"}
            response = {**self.whole(Say("")), "status": "failed", "error": error}
            return _event({"type": "response.failed", "sequence_number": 9, "response": response})
        fault = {"code": "server_is_overloaded", "message": "Overloaded", "param": None}
        return _event({"type": "error", "sequence_number": 9, **fault})


class _Chat:
    def __init__(self, body: dict[str, Any]) -> None:
        self.model = body["model"]
        assert body["messages"][0]["role"] == "system"
        self.usage_wanted = bool(body.get("stream_options", {}).get("include_usage"))

    def error(self, step: Refuse) -> dict[str, Any]:
        return {"error": {"type": step.kind, "code": step.kind, "message": step.said, "param": None}}

    def _usage(self, step: Say) -> dict[str, Any]:
        details = {"cached_tokens": step.read}
        total = step.input + step.output
        used = {"prompt_tokens": step.input, "completion_tokens": step.output, "total_tokens": total}
        return {**used, "prompt_tokens_details": details}

    def whole(self, step: Say) -> dict[str, Any]:
        choice = {"index": 0, "finish_reason": _CHAT_STOPS[step.stop], "logprobs": None}
        message = {"role": "assistant", "content": step.text, "refusal": None}
        about = {"id": "chat_1", "object": "chat.completion", "created": 1, "model": self.model}
        return {**about, "choices": [{**choice, "message": message}], "usage": self._usage(step)}

    def stream(self, step: Say) -> Iterator[str]:
        about = {"id": "chat_1", "object": "chat.completion.chunk", "created": 1, "model": self.model}

        def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return _event({**about, "choices": [choice]}, named=False)

        yield chunk({"role": "assistant", "content": ""})
        for piece in _pieces(step.text):
            yield chunk({"content": piece})
        ended = chunk({}, _CHAT_STOPS[step.stop])
        if self.usage_wanted:
            ended += _event({**about, "choices": [], "usage": self._usage(step)}, named=False)
        yield ended + "data: [DONE]\n\n"

    def broken(self, _how: str) -> str:
        return _event({"error": {"type": "overloaded", "code": "overloaded", "message": "Overloaded"}}, named=False)


def _wire(asked: Asked) -> _Messages | _Responses | _Chat:
    for path, kind in (("/messages", _Messages), ("/responses", _Responses), ("/chat/completions", _Chat)):
        if asked.path.partition("?")[0].endswith(path):
            return kind(asked.body)
    raise KeyError(f"route for {asked.path}")
