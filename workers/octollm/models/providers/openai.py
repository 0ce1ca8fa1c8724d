"""OpenAI's Responses, streamed, through its own SDK, whose retries are off.

Nothing is stored at the provider.
"""

from openai import AsyncOpenAI, Omit, Timeout, omit
from openai.types.responses import EasyInputMessageParam, Response, ResponseTextConfigParam, ResponseUsage

from octollm.models import errors as faults
from octollm.models.provider import Answer, Request, Stop, Tokens, plain
from octollm.models.providers.openai_errors import translated
from octollm.models.schemas import enforceable, enforced, in_words

_CONNECT_S = 10.0
_STOPS: dict[str, Stop] = {"max_output_tokens": "max_tokens", "content_filter": "refusal"}


class OpenAI:
    """A model of OpenAI itself. The key is read by the SDK."""

    name = "openai"

    def __init__(self, model: str, max_output_tokens: int, timeout_s: float) -> None:
        self.model = model
        self._max = max_output_tokens
        self._client = AsyncOpenAI(max_retries=0, timeout=Timeout(timeout_s, connect=_CONNECT_S))

    async def answer(self, request: Request) -> Answer:
        """See `Provider`."""
        with translated(self.name, self.model):
            return await self._stream(request)

    async def close(self) -> None:
        """See `Provider`."""
        await self._client.close()

    async def _stream(self, request: Request) -> Answer:
        text: list[str] = []
        refused = False
        last: Response | None = None
        system, config = _form(request)
        async with await self._client.responses.create(
            model=self.model,
            instructions=system,
            input=[*_messages(request)],
            max_output_tokens=self._max,
            text=config,
            store=False,
            stream=True,
        ) as stream:
            async for event in stream:
                match event.type:
                    case "response.output_text.delta":
                        text.append(event.delta)
                    case "response.refusal.delta" | "response.refusal.done":
                        refused = True
                    case "response.completed" | "response.incomplete":
                        last = event.response
                    case "response.failed":
                        fault = event.response.error
                        code, said = (fault.code, fault.message) if fault else ("", "")
                        raise faults.in_stream(self.name, self.model, code, said)
                    case "error":
                        raise faults.in_stream(self.name, self.model, event.code or "", event.message)
        if last is None:
            raise faults.broken_stream(self.name)
        stop: Stop = "refusal" if refused else "end"
        if last.incomplete_details is not None:
            stop = _STOPS.get(last.incomplete_details.reason or "", "other")
        return Answer(plain("".join(text)), stop, last.model or self.model, _tokens(last.usage))


def _form(request: Request) -> tuple[str, ResponseTextConfigParam | Omit]:
    """The system prompt, and the schema: enforced, or in words together with "some JSON object"."""
    if request.schema is None:
        return request.system, omit
    if enforceable(request.schema):
        schema = enforced(request.schema)
        return request.system, {"format": {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}}
    return f"{request.system}\n\n{in_words(request.schema)}", {"format": {"type": "json_object"}}


def _messages(request: Request) -> list[EasyInputMessageParam]:
    # JSON mode is refused unless a message, and not only the instructions, says the word.
    asked = request.prompt if request.schema is None else f"{request.prompt}\n\nAnswer in JSON."
    messages: list[EasyInputMessageParam] = [{"role": "user", "content": asked}]
    for turn in request.turns:
        messages.append({"role": "assistant", "content": turn.answer})
        messages.append({"role": "user", "content": turn.complaint})
    return messages


def _tokens(usage: ResponseUsage | None) -> Tokens | None:
    """Cached tokens are counted inside `input_tokens`; ours are counted separately."""
    if usage is None:
        return None
    details = usage.input_tokens_details
    read, written = (details.cached_tokens or 0, details.cache_write_tokens or 0) if details else (0, 0)
    return Tokens(max(0, usage.input_tokens - read - written), usage.output_tokens, read, written)
