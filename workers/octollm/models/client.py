"""The model client of arms: asks the journal first, then the model.

Answers are journalled before they are used.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import uuid4

import structlog

from octollm.contracts import StepRequested
from octollm.errors import PermanentError, StoreUnavailableError, TransientError
from octollm.models.journal import Journal, Journalled, Key, Paid
from octollm.models.prices import cost_usd
from octollm.models.provider import Answer, Provider, Request, Tokens, Turn
from octollm.models.schemas import in_words, value_of
from octollm.ports import Question, Reply

_log = structlog.get_logger(__name__)
_MOST_UNSAVED = 1000
"""Bounds the memory of answers whose steps never came back, because their tasks were cancelled."""
NEEDS_MODEL = "this needs a model and none is configured; set ANTHROPIC_API_KEY or OPENAI_API_KEY and start again"


class JournalledModelClient:
    """A `ModelClient` (see `ports.py`) on a journal and a provider."""

    def __init__(
        self,
        journal: Callable[[], Awaitable[Journal]],
        provider: Provider | None,
        timeout_s: float,
        delivery: Callable[[], int],
    ) -> None:
        """`journal`: opens it with the first question; `provider`: None still answers what is in the journal;

        `timeout_s`: longest one call may take, where the step allows no less; `delivery`: of the entry in work.
        """
        self._journal = journal
        self._provider = provider
        self._timeout_s = timeout_s
        self._delivery = delivery
        self._unsaved: OrderedDict[tuple[object, ...], tuple[Journalled, Paid]] = OrderedDict()
        """Paid answers that are not in the journal yet, by the columns of their keys."""

    async def ask(self, step: StepRequested, question: Question) -> Reply:
        """See `ModelClient.ask`.

        Raises StoreUnavailableError while Postgres is unavailable.

        An answer that could not be journalled is kept: the next call with the same question journals and returns it.
        """
        journal = await self._journal()
        request = Request(question.system, question.prompt, question.schema)
        spent, old = _Spent(), True
        for repair in range(question.repairs + 1):
            key = Key(step, question.purpose, question.call, repair, request.sha256)
            found = await self._save(journal, key) if key.columns in self._unsaved else await journal.find(key)
            if found is None:
                await self._pay(key, request)
                found, old = await self._save(journal, key), False
            spent.add(found.answer.tokens)
            value, fault = _checked(found, question)
            if fault is None:
                return spent.reply(found, value, repair, journalled=old)
            _log.info("the answer breaks its schema", purpose=question.purpose, repair=repair)
            request = replace(request, turns=(*request.turns, Turn(found.answer.text, _complaint(fault, question))))
        message = "the model's answer broke its schema in every call; try another model (models.model)"
        raise PermanentError("model_answer_invalid", message)

    async def _pay(self, key: Key, request: Request) -> None:
        """Call the model, and keep its answer for `_save`."""
        provider = self._provider
        if provider is None:
            raise PermanentError("needs_model", NEEDS_MODEL)
        asked_at = datetime.now(UTC)
        limit_s = min(key.step.timeout_s, self._timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                answer = await provider.answer(request)
        except TimeoutError as error:
            raise TransientError("model_timeout", f"{provider.name}: no complete answer in {limit_s:g} s") from error
        cost = cost_usd(provider.name, provider.model, answer.tokens)
        paid = Paid(uuid4(), self._delivery(), cost, asked_at, datetime.now(UTC))
        _log.info(
            "a model answered",
            purpose=key.purpose,
            call=key.call,
            repair=key.repair,
            provider=provider.name,
            model=answer.model,
            stop=answer.stop,
            cost_usd=None if cost is None else str(cost),
        )
        self._unsaved[key.columns] = (Journalled(provider.name, answer), paid)
        if len(self._unsaved) > _MOST_UNSAVED:
            self._unsaved.popitem(last=False)

    async def _save(self, journal: Journal, key: Key) -> Journalled:
        """Journal a paid answer, and return the one that counts.

        Raises StoreUnavailableError while Postgres is unavailable, and also when it is cancelled: the time limit of the
        step must not cost a paid answer. Then the consumer keeps the step's lease without limit and calls the arm
        again, and the next call with the same question comes here first.
        """
        new, paid = self._unsaved[key.columns]
        try:
            kept = await journal.keep(key, new, paid)
        except asyncio.CancelledError as error:
            raise StoreUnavailableError("Postgres has not confirmed a paid answer in time") from error
        self._unsaved.pop(key.columns, None)
        return kept


def _checked(found: Journalled, question: Question) -> tuple[Any, str | None]:
    """The value, and what is wrong with it. Raises PermanentError for an answer that is none."""
    if found.answer.stop != "end":
        _stopped(found)
    if question.schema is None:
        return None, None
    return value_of(found.answer.text, question.schema)


def _stopped(found: Journalled) -> NoReturn:
    of = f"{found.provider} {found.answer.model}"
    match found.answer.stop:
        case "max_tokens":
            message = f"{of} reached the limit of its output; raise models.max_output_tokens or ask for less"
            raise PermanentError("model_output_too_long", message)
        case "refusal":
            raise PermanentError("model_refused", f"{of} declined to answer; change the request or the model")
        case "context":
            raise PermanentError("model_input_too_long", f"the question and the answer are longer than {of} takes")
        case _:
            raise PermanentError("model_stopped", f"{of} stopped without an answer")


def _complaint(fault: str, question: Question) -> str:
    schema = in_words(question.schema) if question.schema is not None else ""
    return f"{fault}\n\nAnswer again, in full.\n{schema}"


class _Spent:
    """Tokens of one question over all its calls."""

    def __init__(self) -> None:
        self._input = self._output = 0

    def add(self, tokens: Tokens | None) -> None:
        if tokens is not None:
            self._input += tokens.input + tokens.cache_read + tokens.cache_write
            self._output += tokens.output

    def reply(self, found: Journalled, value: object, repairs: int, *, journalled: bool) -> Reply:
        answer: Answer = found.answer
        return Reply(answer.text, value, found.provider, answer.model, self._input, self._output, journalled, repairs)
