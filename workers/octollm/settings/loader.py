"""Every setting of every Python process, read once at start by `load_settings`.

The values come from three places, later ones win: the commented `octollm.default.toml` next to this file (the
only place with defaults), the file named by OCTOLLM_CONFIG, and the environment (OCTOLLM_<SECTION>_<KEY>).
A key that nobody knows is refused, because a setting with a typing error would otherwise be a default in
disguise. Nothing here connects to anything.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from octollm.errors import SettingsError
from octollm.settings import sections

DEFAULT_FILE = Path(__file__).with_name("octollm.default.toml")
PREFIX = "OCTOLLM_"
CONFIG = "OCTOLLM_CONFIG"
DEBUG = "OCTOLLM_DEBUG"
ENVIRONMENT_ONLY = frozenset({("api", "secret"), ("api", "key")})
"""Secrets that no settings file may hold: such files are shared and committed."""

SECTIONS: dict[str, type[sections.Section]] = {
    "redis": sections.RedisSettings,
    "postgres": sections.PostgresSettings,
    "reflex": sections.ReflexSettings,
    "executor": sections.ExecutorSettings,
    "worker": sections.WorkerSettings,
    "orchestrator": sections.OrchestratorSettings,
    "handoff": sections.HandoffSettings,
    "api": sections.ApiSettings,
    "schedules": sections.SchedulesSettings,
    "webhooks": sections.WebhooksSettings,
    "callbacks": sections.CallbacksSettings,
    "quotas": sections.QuotasSettings,
    "qdrant": sections.QdrantSettings,
    "embedding": sections.EmbeddingSettings,
    "models": sections.ModelsSettings,
    "retention": sections.RetentionSettings,
    "log": sections.LogSettings,
    "topology": sections.TopologySettings,
}


class Settings(BaseSettings):
    """All sections. Made by `load_settings`; frozen like its sections."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        case_sensitive=False,
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,  # sections are one word, keys may be several
    )

    redis: sections.RedisSettings
    postgres: sections.PostgresSettings
    reflex: sections.ReflexSettings
    executor: sections.ExecutorSettings
    worker: sections.WorkerSettings
    orchestrator: sections.OrchestratorSettings
    handoff: sections.HandoffSettings
    api: sections.ApiSettings
    schedules: sections.SchedulesSettings
    webhooks: sections.WebhooksSettings
    callbacks: sections.CallbacksSettings
    quotas: sections.QuotasSettings
    qdrant: sections.QdrantSettings
    embedding: sections.EmbeddingSettings
    models: sections.ModelsSettings
    retention: sections.RetentionSettings
    log: sections.LogSettings
    topology: sections.TopologySettings

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Earlier ones win. Dot-env files and secret folders are left out: three places are enough."""
        del dotenv_settings, file_secret_settings
        files = (InitSettingsSource(settings_cls, values) for values in (_config_file(), _read(DEFAULT_FILE)))
        return (init_settings, env_settings, *files)


def load_settings() -> Settings:
    """Read all three places; raises SettingsError with a message that says which key and what to do."""
    _refuse_unknown_variables()
    config = _config_file()
    _check_file(config)
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_explain(error, config)) from error


def variable(section: str, key: str) -> str:
    """The environment variable that sets a key."""
    return f"{PREFIX}{section}_{key}".upper()


def known_keys() -> dict[str, tuple[str, ...]]:
    """Section names and their keys, in the order of the default file."""
    return {name: tuple(model.model_fields) for name, model in SECTIONS.items()}


def is_set(section: str, key: str) -> bool:
    """Whether someone chose this value: the default file does not count."""
    return variable(section, key) in os.environ or key in _config_file().get(section, {})


def _config_file() -> dict[str, Any]:
    name = os.environ.get(CONFIG, "")
    return _read(Path(name)) if name else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise SettingsError(
            f"the settings file {path} cannot be read ({error.strerror}); correct {CONFIG} or unset it"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"the settings file {path} is not UTF-8 text: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file {path} is not valid TOML: {error}") from error


def _refuse_unknown_variables() -> None:
    known = {CONFIG, DEBUG} | {variable(name, key) for name, keys in known_keys().items() for key in keys}
    for name in sorted(os.environ):
        # Upper case on both sides: the library reads variables in any case.
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise SettingsError(
                f"unknown environment variable {name}{_nearest(name.upper(), known)}; unset or correct it"
            )


def _check_file(values: dict[str, Any]) -> None:
    """Unknown keys, and values of another type: a file has types, so "8" is not the number 8 there."""
    where = f"in {os.environ.get(CONFIG)}"
    known = known_keys()
    for section, content in values.items():
        if section not in known:
            raise SettingsError(f"unknown section [{section}] {where}{_nearest(section, known)}")
        if not isinstance(content, dict):
            raise SettingsError(f"{section} {where} must be a section: write [{section}] and its keys below")
        for key in content:
            if key not in known[section]:
                names = {f"{section}.{name}" for name in known[section]}
                raise SettingsError(f"unknown key {section}.{key} {where}{_nearest(f'{section}.{key}', names)}")
            if (section, key) in ENVIRONMENT_ONLY:
                raise SettingsError(
                    f"{section}.{key} {where} is refused: set {variable(section, key)} in the environment"
                )
        defaults = _read(DEFAULT_FILE)[section]
        try:
            SECTIONS[section].model_validate(defaults | content, strict=True)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join([section, *map(str, problem["loc"])])
            raise SettingsError(f"{key} {where} is refused: {_reason(problem)}") from error


def _explain(error: ValidationError, config: dict[str, Any]) -> str:
    problem = error.errors()[0]
    section, *rest = (str(part) for part in problem["loc"])
    key = rest[0] if rest else ""
    name = variable(section, key)
    if name in os.environ:
        return f"{name} is refused: {_reason(problem)}"
    where = f" in {os.environ[CONFIG]}" if key in config.get(section, {}) else ""
    return f"setting {section}.{key}{where} is refused: {_reason(problem)}"


def _reason(problem: ErrorDetails) -> str:
    """The library's sentence without the value: URLs may carry credentials."""
    return str(problem["msg"]).removeprefix("Value error, ")


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""
