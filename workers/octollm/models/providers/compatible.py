"""Any server that speaks OpenAI's Chat Committer, named by OPENAI_BASE_URL.

Such servers differ in how they take a schema: some enforce it, some know JSON only, some know nothing, some refuse,
some ignore it and say nothing. So the request climbs down a ladder, and keeps the form that the server accepted.
"""

from openai import APIStatusError, AsyncOpenAI, Omit, Timeout, omit
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionMessageParam
from openai.types.chat.completion_create_params import ResponseFormat

from octollm.models import errors as faults
from octollm.models.provider import Answer, Request, Stop, Tokens, plain
from octollm.models.providers.openai_errors import of_status, translated
from octollm.models.schemas import enforceable, enforced, in_words

_CONNECT_S = 10.0
_LADDER = ("json_schema", "json_object", "text")
# What servers answer to a form they do not know; all before the first token, so that nothing is paid for twice.
_NOT_THIS_WAY = frozenset({400, 415, 422, 501})
_STOPS: dict[str, Stop] = {"stop": "end", "length": "max_tokens", "content_filter": "refusal"}


class Compatible:
    """One model at one server; keeps the form of structured output that the server accepts."""

    name = "compatible"

    def __init__(self, model: str, max_output_tokens: int, timeout_s: float) -> None:
        self.model = model
        self._max = max_output_tokens
        self._client = AsyncOpenAI(max_retries=0, timeout=Timeout(timeout_s, connect=_CONNECT_S))
        self._rung = 0

    async def answer(self, request: Request) -> Answer:
        """See `Provider`."""
        with translated(self.name, self.model):
            if request.schema is None:
                return await self._stream(request, None)
            if request.turns and self._rung == 0:
                # It was given the schema and answered something else: it does not look at schemas.
                self._rung = 1
            return await self._climb_down(request)

    async def close(self) -> None:
        """See `Provider`."""
        await self._client.close()

    async def _climb_down(self, request: Request) -> Answer:
        first: APIStatusError | None = None
        for rung in range(self._rung, len(_LADDER)):
            try:
                answer = await self._stream(request, _LADDER[rung])
            except APIStatusError as error:
                if error.status_code not in _NOT_THIS_WAY:
                    raise
                first = first or error
                continue
            # Only now: what is refused in every form was refused for another reason.
            self._rung = max(self._rung, rung)
            return answer
        if first is None:
            raise faults.unreachable(self.name)
        raise of_status(self.name, self.model, first) from first

    async def _stream(self, request: Request, form: str | None) -> Answer:
        text: list[str] = []
        stop: str | None = None
        refused = False
        model, tokens = self.model, None
        async with await self._client.chat.completions.create(
            model=self.model,
            messages=_messages(request, form),
            max_tokens=self._max,
            response_format=_format(request, form),
            stream=True,
            stream_options={"include_usage": True},
        ) as stream:
            async for chunk in stream:
                model = chunk.model or model
                tokens = tokens if chunk.usage is None else _tokens(chunk.usage)
                for choice in chunk.choices or ():
                    text.append(choice.delta.content or "")
                    refused = refused or bool(choice.delta.refusal)
                    stop = choice.finish_reason or stop
        if stop is None:
            raise faults.broken_stream(self.name)
        return Answer(plain("".join(text)), "refusal" if refused else _STOPS.get(stop, "other"), model, tokens)


def _format(request: Request, form: str | None) -> ResponseFormat | Omit:
    if form == "json_object":
        return {"type": "json_object"}
    if form != "json_schema" or request.schema is None:
        return omit
    # Many of these servers enforce any schema; only where OpenAI could as well is it announced as strict.
    strict = enforceable(request.schema)
    schema = enforced(request.schema) if strict else dict(request.schema)
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": strict}}


def _messages(request: Request, form: str | None) -> list[ChatCompletionMessageParam]:
    system = request.system
    if request.schema is not None and form != "json_schema":
        system = f"{system}\n\n{in_words(request.schema)}"
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": system},
        {"role": "user", "content": request.prompt},
    ]
    for turn in request.turns:
        messages.append({"role": "assistant", "content": turn.answer})
        messages.append({"role": "user", "content": turn.complaint})
    return messages


def _tokens(usage: CompletionUsage) -> Tokens:
    """Cached tokens are counted inside `prompt_tokens`; ours are counted separately."""
    details = usage.prompt_tokens_details
    read, written = (details.cached_tokens or 0, details.cache_write_tokens or 0) if details else (0, 0)
    return Tokens(max(0, usage.prompt_tokens - read - written), usage.completion_tokens, read, written)
