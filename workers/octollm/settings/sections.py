"""The sections of the settings, their types and their value checks.

Owns what a value may look like. Has no defaults (those stand in `octollm.default.toml`) and reads nothing.
"""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr


def _scheme(value: str, allowed: tuple[str, ...], example: str) -> str:
    if urlsplit(value).scheme not in allowed:
        raise ValueError(f"must start with {' or '.join(f'{name}://' for name in allowed)}, like {example}")
    return value


def _redis_url(value: str) -> str:
    return _scheme(value, ("redis", "rediss", "unix"), "redis://127.0.0.1:6379/0")


def _postgres_dsn(value: str) -> str:
    return _scheme(value, ("postgresql", "postgres"), "postgresql://127.0.0.1:5432/octollm")


def _http_url(value: str) -> str:
    _scheme(value, ("http", "https"), "http://127.0.0.1:8080")
    if not urlsplit(value).hostname:
        raise ValueError("must name a host, like http://127.0.0.1:8080")
    return value.rstrip("/")


def _optional_http_url(value: str) -> str:
    return _http_url(value) if value else value


def split_listen(value: str) -> tuple[str, int]:
    """Host and port of a listen address; IPv6 addresses stand in brackets."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+):([0-9]{1,5})", value)
    if match is None or int(match[2]) > 65535:
        raise ValueError("must be host:port with a port from 0 to 65535, like 127.0.0.1:8080")
    return match[1].strip("[]"), int(match[2])


def join_listen(host: str, port: int) -> str:
    """The opposite of `split_listen`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(value: str) -> str:
    split_listen(value)
    return value


def _origins(value: str) -> str:
    for origin in filter(None, (part.strip() for part in value.split(","))):
        if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?", origin):
            raise ValueError("must be origins like https://app.example.org, without a path, separated by commas")
    return value


def _long_secret(value: SecretStr) -> SecretStr:
    if 0 < len(value.get_secret_value()) < _SHORTEST_SECRET:
        raise ValueError(f"must have at least {_SHORTEST_SECRET} characters, like the output of `openssl rand -hex 32`")
    return value


_SHORTEST_SECRET = 32
Seconds = Annotated[int, Field(ge=1, le=86400)]
Lifetime = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""Seconds that Redis keeps a key."""
Listen = Annotated[str, AfterValidator(_listen)]
# The name becomes part of Redis commands and metric labels of several programs.
Consumer = Annotated[str, Field(pattern=r"\A[A-Za-z0-9._:-]{0,128}\z")]


class Section(BaseModel):
    """Frozen, so that no part can change another part's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class RedisSettings(Section):
    """The section `redis`; octollm.default.toml says what each key means."""

    url: Annotated[str, AfterValidator(_redis_url)]
    ca_file: str
    connect_timeout_s: Annotated[float, Field(gt=0, le=60)]
    server: str


class PostgresSettings(Section):
    """The section `postgres`; octollm.default.toml says what each key means."""

    dsn: Annotated[str, AfterValidator(_postgres_dsn)]
    pool_size: Annotated[int, Field(ge=1, le=100)]


class ReflexSettings(Section):
    """The section `reflex`; octollm.default.toml says what each key means."""

    listen: Listen
    anonymous: Literal["auto", "on", "off"]
    credentials_file: str
    url: Annotated[str, AfterValidator(_http_url)]
    body_limit_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)]
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)]
    max_connections_per_client: Annotated[int, Field(ge=0, le=1_000_000)]
    max_submissions: Annotated[int, Field(ge=1, le=100_000)]
    tls_certificate_file: str
    tls_key_file: str
    cors_origins: Annotated[str, AfterValidator(_origins)]
    header_timeout_s: Seconds
    idle_timeout_s: Seconds
    body_timeout_s: Seconds
    idempotency_ttl_s: Annotated[int, Field(ge=1, le=31_536_000)]
    durability: Literal["auto", "fsync", "replicated", "stored"]
    durability_replicas: Annotated[int, Field(ge=1, le=16)]
    durability_wait_s: Seconds
    drain_s: Seconds
    max_event_streams: Annotated[int, Field(ge=1, le=100_000)]
    max_forwards: Annotated[int, Field(ge=1, le=100_000)]
    consumer: Consumer


class ExecutorSettings(Section):
    """The section `executor`; octollm.default.toml says what each key means."""

    metrics_listen: Listen
    drain_s: Seconds
    workspace_dir: str
    python: str
    min_isolation: Literal["namespaces", "landlock"]
    consumer: Consumer


class WorkerSettings(Section):
    """The section `worker`; octollm.default.toml says what each key means."""

    metrics_listen: Listen
    drain_s: Seconds
    consumer: Consumer
    circuit_breaker_tasks: Annotated[int, Field(ge=0, le=1000)]
    circuit_breaker_cooldown_s: Seconds


class OrchestratorSettings(Section):
    """The section `orchestrator`; octollm.default.toml says what each key means."""

    recipes_dir: str
    batch_wait_ms: Annotated[int, Field(ge=0, le=1000)]
    batch_max: Annotated[int, Field(ge=1, le=1000)]
    status_ttl_s: Lifetime
    status_result_bytes: Annotated[int, Field(ge=0, le=16 * 1024 * 1024)]
    reconcile_interval_s: Seconds


class HandoffSettings(Section):
    """The section `handoff`; octollm.default.toml says what each key means."""

    direct: bool


class ApiSettings(Section):
    """The section `api`; octollm.default.toml says what each key means."""

    listen: Listen
    anonymous: Literal["auto", "on", "off"]
    url: Annotated[str, AfterValidator(_optional_http_url)]
    secret: Annotated[SecretStr, AfterValidator(_long_secret)]
    key: SecretStr


class SchedulesSettings(Section):
    """The section `schedules`; octollm.default.toml says what each key means."""

    file: str


class WebhooksSettings(Section):
    """The section `webhooks`; octollm.default.toml says what each key means."""

    file: str


class CallbacksSettings(Section):
    """The section `callbacks`; octollm.default.toml says what each key means."""

    file: str
    timeout_s: Annotated[int, Field(ge=1, le=60)]
    max_attempts: Annotated[int, Field(ge=1, le=1000)]
    max_attempts_per_tenant: Annotated[int, Field(ge=1, le=1000)]
    max_attempts_per_endpoint: Annotated[int, Field(ge=1, le=1000)]
    result_bytes: Annotated[int, Field(ge=0, le=16 * 1024 * 1024)]


class QuotasSettings(Section):
    """The section `quotas`; octollm.default.toml says what each key means."""

    file: str


class QdrantSettings(Section):
    """The section `qdrant`; octollm.default.toml says what each key means."""

    url: Annotated[str, AfterValidator(_optional_http_url)]
    api_key: str
    path: str
    store: Literal["auto", "server", "edge", "local", "none"]


class EmbeddingSettings(Section):
    """The section `embedding`; octollm.default.toml says what each key means."""

    provider: Literal["auto", "minilm", "openai", "fastembed", "none"]
    path: str
    model: str
    url: Annotated[str, AfterValidator(_optional_http_url)]
    dimension: Annotated[int, Field(ge=1, le=8192)]


class ModelsSettings(Section):
    """The section `models`; octollm.default.toml says what each key means."""

    provider: Literal["auto", "anthropic", "openai", "none"]
    model: str
    timeout_s: Seconds
    max_output_tokens: Annotated[int, Field(ge=1, le=200_000)]


class RetentionSettings(Section):
    """The section `retention`; octollm.default.toml says what each key means."""

    finished_days: Annotated[int, Field(ge=0, le=36500)]
    purge_interval_s: Seconds


class LogSettings(Section):
    """The section `log`; octollm.default.toml says what each key means."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["json", "console", "auto"]


class TopologySettings(Section):
    """The section `topology`; octollm.default.toml says what each key means."""

    file: str
