"""The shape of `streams.yaml`: which keys there are and of what type.

What they mean together is the loader's.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]  # YAML gives lists
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RetryFile(_Closed):
    """`retry` of an arm."""

    max_failures: Positive
    base_ms: Positive
    cap_ms: Positive


class WorkFile(_Closed):
    """What every work queue must have."""

    description: str
    accepts: Names
    group: str
    handler: str
    concurrency: Positive
    lease_s: Positive
    heartbeat_s: Positive
    max_deliveries: Positive


class IngestFile(WorkFile):
    """`ingest`."""

    tenants: Names


class TopicFile(WorkFile):
    """One of `topics`."""

    priorities: bool = False
    high_water: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    window: Positive | None = None
    max_running_per_tenant: Positive | None = None
    timeout_s: Annotated[int, Field(ge=1, le=86400)] | None = None
    retry: RetryFile | None = None


class LiveFile(_Closed):
    """One of `live`."""

    description: str
    accepts: Names
    max_length: Positive


class TopologyFile(_Closed):
    """The whole file."""

    version: int
    lanes: Names
    priorities: Names
    ingest: IngestFile
    topics: dict[str, TopicFile]
    live: dict[str, LiveFile]
