"""Vectors on a Qdrant server: any number of processes, any size."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from pydantic import ValidationError
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from octollm.errors import StoreUnavailableError, VectorStoreError
from octollm.memory.vectors.client import ClientStore
from octollm.memory.vectors.payload import COLLECTION, INDEXED, TENANT

_TIMEOUT_S = 10


class ServerStore(ClientStore):
    """A `VectorStore`. Every call may raise StoreUnavailableError: the server is down or overloaded."""

    def __init__(self, url: str, api_key: str = "", collection: str = COLLECTION) -> None:
        """`url`: of the REST interface, like http://127.0.0.1:6333; without a port 6333 is meant."""
        super().__init__(collection)
        self._url = url
        self._host = urlsplit(url).netloc.rpartition("@")[2]  # for messages, without a password
        self._api_key = api_key

    @property
    def _place(self) -> str:
        return f"the collection {self._collection} of the Qdrant server"

    def _connect(self) -> AsyncQdrantClient:
        with warnings.catch_warnings():
            # Plain HTTP within a private network is the operator's choice.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            return AsyncQdrantClient(
                url=self._url, api_key=self._api_key or None, timeout=_TIMEOUT_S, check_compatibility=False
            )

    async def _prepare(self, client: AsyncQdrantClient) -> None:
        """Create the indexes at every start: the process that made the collection may have died before this."""
        for field in INDEXED:
            schema = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=field == TENANT)
            await client.create_payload_index(self._collection, field, schema, wait=True)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except UnexpectedResponse as error:
            raise _refusal(error.status_code or 0) from error
        except ResponseHandlingException as error:
            if isinstance(error.source, (ValidationError, ValueError)):
                raise VectorStoreError(
                    f"what answers at {self._host} is no Qdrant; check OCTOLLM_QDRANT_URL"
                ) from error
            raise StoreUnavailableError(
                f"the Qdrant server at {self._host} cannot be reached; start it or check OCTOLLM_QDRANT_URL"
            ) from error
        except (ApiException, QdrantException) as error:
            raise StoreUnavailableError("the Qdrant server takes no requests for now") from error


def _refusal(status: int) -> StoreUnavailableError | VectorStoreError:
    if status in {401, 403}:
        return VectorStoreError(f"the Qdrant server refuses the key ({status}); set OCTOLLM_QDRANT_API_KEY")
    if status == 404:
        return VectorStoreError("the Qdrant server knows no such collection, or is none; check OCTOLLM_QDRANT_URL")
    if status in {408, 429} or status >= 500:
        return StoreUnavailableError(f"the Qdrant server answers {status} for now")
    return VectorStoreError(f"the Qdrant server refused the request ({status}); see its log")
