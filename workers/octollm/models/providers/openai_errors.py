"""What OpenAI's SDK raises, as our errors; shared by both of its protocols."""

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

import httpx2
from openai import APIConnectionError, APIError, APIStatusError

from octollm.errors import StepError
from octollm.models import errors as faults


@contextmanager
def translated(provider: str, model: str) -> Iterator[None]:
    """Raises a StepError for whatever the SDK raises inside."""
    try:
        yield
    except APIStatusError as error:
        raise of_status(provider, model, error) from error
    except APIConnectionError as error:
        raise faults.unreachable(provider) from error
    except APIError as error:  # no status: it came inside a stream that had begun well
        raise faults.in_stream(provider, model, error.code or error.type or "", error.message) from error
    except (httpx2.HTTPError, httpx2.StreamError, JSONDecodeError, UnicodeDecodeError) as error:
        raise faults.broken_stream(provider) from error


def of_status(provider: str, model: str, error: APIStatusError) -> StepError:
    """The server answered with a status."""
    wait_s = faults.retry_after(error.response.headers)
    kind, said = error.code or error.type or "", error.message
    return faults.of_status(provider, model, error.status_code, kind=kind, said=said, retry_after_s=wait_s)
