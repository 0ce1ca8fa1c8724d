"""Anthropic's Messages, streamed, through its own SDK, whose retries are off: there is one retry layer, the step's."""

from json import JSONDecodeError

import httpx2
from anthropic import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AsyncAnthropic,
    Omit,
    Timeout,
    omit,
    transform_schema,
)
from anthropic.types import MessageDeltaUsage, MessageParam, OutputConfigParam, Usage

from octollm.errors import StepError
from octollm.models import errors as faults
from octollm.models.provider import Answer, Request, Stop, Tokens, plain
from octollm.models.schemas import enforceable, in_words

_CONNECT_S = 10.0
_STOPS: dict[str, Stop] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "max_tokens": "max_tokens",
    "refusal": "refusal",
    "model_context_window_exceeded": "context",
}


class Anthropic:
    """A model of Anthropic, or of the server in ANTHROPIC_BASE_URL.

    Key and URL are read by the SDK itself.
    """

    name = "anthropic"

    def __init__(self, model: str, max_output_tokens: int, timeout_s: float) -> None:
        self.model = model
        self._max = max_output_tokens
        self._client = AsyncAnthropic(max_retries=0, timeout=Timeout(timeout_s, connect=_CONNECT_S))

    async def answer(self, request: Request) -> Answer:
        """See `Provider`."""
        try:
            return await self._stream(request)
        except APIStatusError as error:
            raise self._fault(error) from error
        except APIConnectionError as error:
            raise faults.unreachable(self.name) from error
        except (APIError, httpx2.HTTPError, httpx2.StreamError, JSONDecodeError, UnicodeDecodeError) as error:
            raise faults.broken_stream(self.name) from error

    async def close(self) -> None:
        """See `Provider`."""
        await self._client.close()

    async def _stream(self, request: Request) -> Answer:
        text: list[str] = []
        stop: str | None = None
        model, used, complete = self.model, Tokens(0, 0), False
        system, config = self._form(request)
        async with await self._client.messages.create(
            model=self.model,
            max_tokens=self._max,
            system=system,
            messages=_messages(request),
            output_config=config,
            stream=True,
        ) as stream:
            async for event in stream:
                if event.type == "message_start":
                    model, used = event.message.model or model, _tokens(event.message.usage, used)
                elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                    text.append(event.delta.text)
                elif event.type == "message_delta":
                    stop, used = event.delta.stop_reason, _tokens(event.usage, used)
                elif event.type == "message_stop":
                    complete = True
        if not complete or stop is None:
            raise faults.broken_stream(self.name)
        return Answer(plain("".join(text)), _STOPS.get(stop, "other"), model, used)

    def _form(self, request: Request) -> tuple[str, OutputConfigParam | Omit]:
        """The system prompt, and the schema where it can be enforced."""
        if request.schema is None:
            return request.system, omit
        if enforceable(request.schema):
            schema = transform_schema(dict(request.schema))
            return request.system, {"format": {"type": "json_schema", "schema": schema}}
        return f"{request.system}\n\n{in_words(request.schema)}", omit

    def _fault(self, error: APIStatusError) -> StepError:
        kind, said = error.type or "", error.api_message or ""
        if error.status_code < 400:
            return faults.in_stream(self.name, self.model, kind, said)
        wait_s = faults.retry_after(error.response.headers)
        return faults.of_status(self.name, self.model, error.status_code, kind=kind, said=said, retry_after_s=wait_s)


def _messages(request: Request) -> list[MessageParam]:
    messages: list[MessageParam] = [{"role": "user", "content": request.prompt}]
    for turn in request.turns:
        messages.append({"role": "assistant", "content": turn.answer or "(no text)"})
        messages.append({"role": "user", "content": turn.complaint})
    return messages


def _tokens(usage: Usage | MessageDeltaUsage, before: Tokens) -> Tokens:
    """Cumulative; what an event leaves out stays as it was. Cached tokens are not part of `input_tokens`."""
    return Tokens(
        before.input if usage.input_tokens is None else usage.input_tokens,
        usage.output_tokens,
        before.cache_read if usage.cache_read_input_tokens is None else usage.cache_read_input_tokens,
        before.cache_write if usage.cache_creation_input_tokens is None else usage.cache_creation_input_tokens,
    )
