"""Requests of the blocking client. Do not edit: `make generate` writes it from `aio_connection.py`."""

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

import httpx2

from octollm.client.connection import options
from octollm.client.credentials import resolve
from octollm.client.responses import TRANSPORT_ERRORS, Model, parse, raise_for_status, unreachable
from octollm.client.retry import Retry
from octollm.contracts.answers import Item, Page
from octollm.errors import BusyError, UnknownError


class Connection:
    """The connections to one reflex, and requests with retries over them."""

    def __init__(self, url: str | None = None, *, api_key: str | None = None, retry_for_s: float = 10.0) -> None:
        """Prepare a client of the reflex at `url`; nothing is sent yet.

        `url`: without it that of the profile file, else http://127.0.0.1:8080.
        `api_key`: an API key or a JSON Web Token. Without it OCTOLLM_API_KEY, else that of the profile file; an empty
        text: send none.
        `retry_for_s`: how many seconds to retry while the reflex is busy or cannot be reached.

        Raises ProfileError, and ParameterError for a key that cannot be sent.
        """
        self._url, credential = resolve(url, api_key)
        self._retry_for_s = retry_for_s
        self._http = httpx2.Client(**options(self._url, credential))

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _get(self, model: type[Model], path: str, params: Mapping[str, str], missing: str | None = None) -> Model:
        response = self._request("GET", path, params=params, missing=missing)
        return parse(model, self._url, response.content)

    def _items(self, model: type[Page[Item]], path: str, filters: Mapping[str, str]) -> Iterator[Item]:
        params = dict(filters)
        while True:
            page = self._get(model, path, params)
            for item in page.items:
                yield item
            if page.next is None:
                return
            params["cursor"] = page.next

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        missing: str | None = None,
        retry_for_s: float | None = None,
    ) -> httpx2.Response:
        """Send a request that is safe to repeat, with retries; return the response with a 2xx status.

        `missing`: the message of UnknownError, in place of the server's; `retry_for_s`: in place of the client's.
        """
        retry = Retry(self._retry_for_s if retry_for_s is None else retry_for_s)
        while True:
            try:
                response = self._http.request(
                    method, f"{self._url}{path}", params=params, headers=headers, content=content
                )
                raise_for_status(self._url, response)
            except TRANSPORT_ERRORS as fault:
                delay = retry.next_delay(unreachable(self._url, fault))
            except BusyError as fault:
                delay = retry.next_delay(fault)
            except UnknownError as fault:
                raise UnknownError(missing or fault.message) from fault
            else:
                return response
            time.sleep(delay)
