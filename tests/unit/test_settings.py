"""Settings: three places, later ones win, and whatever nobody knows is refused by name."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from pydantic import SecretStr

from octollm.errors import SettingsError
from octollm.settings.loader import DEFAULT_FILE, Settings, is_set, known_keys, load_settings, variable
from octollm.settings.redis_url import redis_url


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("OCTOLLM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "octollm.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        monkeypatch.setenv("OCTOLLM_CONFIG", str(path))
        return path

    return write


def refusal() -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value)


def test_the_default_file_holds_every_key_and_no_other():
    defaults = tomllib.loads(DEFAULT_FILE.read_text())
    assert {section: tuple(keys) for section, keys in defaults.items()} == known_keys()
    assert load_settings().model_dump(mode="json") == defaults  # secrets are texts there


def test_no_section_has_a_default_outside_the_file():
    for name, field in Settings.model_fields.items():
        assert field.is_required(), name
        annotation: Any = field.annotation
        for key, inner in annotation.model_fields.items():
            assert inner.is_required(), f"{name}.{key}"


def test_every_number_has_an_upper_bound_that_the_error_names(monkeypatch):
    numbers = [
        (section, key)
        for section, keys in load_settings().model_dump().items()
        for key, value in keys.items()
        if type(value) in {int, float}
    ]
    assert len(numbers) > 20
    for section, key in numbers:
        monkeypatch.setenv(variable(section, key), str(2**40))
        assert re.search(rf"{variable(section, key)} is refused: .* less than or equal to \d+", refusal())
        monkeypatch.delenv(variable(section, key))


def test_the_file_wins_over_the_defaults_and_the_environment_over_the_file(config, monkeypatch):
    config('[redis]\nurl = "redis://from-file:1/0"\n[postgres]\npool_size = 3\n')
    monkeypatch.setenv("OCTOLLM_REDIS_URL", "redis://from-environment:2/0")
    settings = load_settings()
    assert settings.redis.url == "redis://from-environment:2/0"
    assert settings.postgres.pool_size == 3
    assert settings.redis.connect_timeout_s == 2.0


@pytest.mark.parametrize(("section", "keys"), known_keys().items())
def test_every_key_can_be_set_from_the_environment(section: str, keys: tuple[str, ...], monkeypatch):
    defaults = load_settings().model_dump()[section]
    for key in keys:
        value = defaults[key]
        if isinstance(value, SecretStr):
            monkeypatch.setenv(variable(section, key), "x" * 32)
            assert load_settings().model_dump()[section][key].get_secret_value() == "x" * 32
            continue
        monkeypatch.setenv(variable(section, key), str(value + 1) if isinstance(value, int) else str(value))
        found = load_settings().model_dump()[section][key]
        assert found == (value + 1 if isinstance(value, int) else value)


def test_is_set_tells_a_choice_from_a_default(config, monkeypatch):
    config("[postgres]\npool_size = 8\n")
    monkeypatch.setenv("OCTOLLM_REDIS_URL", "redis://127.0.0.1:6379/0")
    assert is_set("redis", "url")
    assert is_set("postgres", "pool_size")
    assert not is_set("postgres", "dsn")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("OCTOLLM_REDIS_URLL", "OCTOLLM_REDIS_URL"),
        ("OCTOLLM_REDIS", "OCTOLLM_REDIS_URL"),
        ("octollm_redis_ur", "OCTOLLM_REDIS_URL"),
        ("OCTOLLM_WORKER_DRAIN", "OCTOLLM_WORKER_DRAIN_S"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_known_one(name: str, near: str, monkeypatch):
    monkeypatch.setenv(name, "x")
    assert re.search(rf"{name} \(did you mean {near}\?\)", refusal())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[redis]\nurll = "x"', r"unknown key redis\.urll in .*octollm\.toml \(did you mean redis\.url\?\)"),
        ("[redi]\nx = 1", r"unknown section \[redi\] .*did you mean redis\?"),
        ("redis = 1", r"redis in .* must be a section"),
        ('[postgres]\npool_size = "8"', r"postgres\.pool_size in .* is refused: .*integer"),
        ("[postgres]\npool_size = 0", r"postgres\.pool_size in .* greater than or equal to 1"),
        ("[postgres]\npool_size = true", r"postgres\.pool_size in .* is refused"),
        ("[redis]\nurl = 5", r"redis\.url in .* valid string"),
        ('[log]\nformat = "xml"', r"log\.format in .* 'json', 'console' or 'auto'"),
        (f'[api]\nsecret = "{"x" * 32}"', r"api\.secret in .* is refused: set OCTOLLM_API_SECRET in the environment"),
        ('[api]\nkey = "octo_x"', r"api\.key in .* is refused: set OCTOLLM_API_KEY in the environment"),
        ("[redis", r"octollm\.toml is not valid TOML: "),
        (b"\xff", r"octollm\.toml is not UTF-8 text"),
    ],
)
def test_a_wrong_file_is_refused_by_name(config, text: str | bytes, expected: str):
    config(text)
    assert re.search(expected, refusal())


def test_a_missing_file_is_refused(monkeypatch):
    monkeypatch.setenv("OCTOLLM_CONFIG", "/nowhere/octollm.toml")
    assert "/nowhere/octollm.toml cannot be read" in refusal()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OCTOLLM_POSTGRES_POOL_SIZE", "many", "valid integer"),
        ("OCTOLLM_POSTGRES_POOL_SIZE", "", "valid integer"),
        ("OCTOLLM_REDIS_URL", "http://127.0.0.1", "must start with redis://"),
        ("OCTOLLM_POSTGRES_DSN", "mysql://x", "must start with postgresql://"),
        ("OCTOLLM_REFLEX_URL", "http://", "must name a host"),
        ("OCTOLLM_REFLEX_LISTEN", "8080", "must be host:port"),
        ("OCTOLLM_REFLEX_LISTEN", "127.0.0.1:65536", "must be host:port"),
        ("OCTOLLM_REFLEX_DURABILITY", "always", "'auto', 'fsync', 'replicated' or 'stored'"),
        ("OCTOLLM_REFLEX_DURABILITY_REPLICAS", "17", "less than or equal to 16"),
        ("OCTOLLM_REFLEX_DURABILITY_WAIT_S", "0", "greater than or equal to 1"),
        ("OCTOLLM_WORKER_CONSUMER", "two words", "match pattern"),
        ("OCTOLLM_WORKER_CONSUMER", "line\n", "match pattern"),
        ("OCTOLLM_REDIS_CONNECT_TIMEOUT_S", "nan", "less than or equal to 60"),
        ("OCTOLLM_API_SECRET", "x" * 31, "must have at least 32 characters"),
        ("OCTOLLM_API_ANONYMOUS", "true", "'auto', 'on' or 'off'"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(monkeypatch, name, value, expected):
    monkeypatch.setenv(name, value)
    message = refusal()
    assert message.startswith(f"{name} is refused: ")
    assert expected in message


@pytest.mark.parametrize(
    ("url", "content", "expected"),
    [
        ("rediss://h:1/0", None, "cannot be read"),
        ("rediss://h:1/0", "no certificate", "holds no certificate in PEM"),
        ("redis://h:1/0", "-----BEGIN CERTIFICATE-----", "must be empty unless redis.url starts with rediss://"),
        ("unix:///run/redis.sock", "-----BEGIN CERTIFICATE-----", "must be empty unless"),
    ],
)
def test_a_file_of_certificates_that_cannot_be_used_is_refused(monkeypatch, tmp_path: Path, url, content, expected):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("OCTOLLM_REDIS_URL", url)
    monkeypatch.setenv("OCTOLLM_REDIS_CA_FILE", str(file))
    with pytest.raises(SettingsError, match=expected):
        redis_url(load_settings().redis)


@pytest.mark.parametrize("query", ["", "?protocol=2"])
def test_the_file_of_certificates_becomes_part_of_the_url(monkeypatch, tmp_path: Path, query):
    file = tmp_path / "a ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----")
    monkeypatch.setenv("OCTOLLM_REDIS_URL", f"rediss://u:p@h:1/0{query}")
    assert redis_url(load_settings().redis) == f"rediss://u:p@h:1/0{query}"
    monkeypatch.setenv("OCTOLLM_REDIS_CA_FILE", str(file))
    found = redis.asyncio.Redis.from_url(redis_url(load_settings().redis)).connection_pool.connection_kwargs
    assert (found["ssl_ca_certs"], found["password"], found["db"]) == (str(file), "p", 0)


def test_no_refusal_shows_a_secret(monkeypatch):
    monkeypatch.setenv("OCTOLLM_REDIS_URL", "http://user:hunter2@127.0.0.1")
    assert "hunter2" not in refusal()
    monkeypatch.delenv("OCTOLLM_REDIS_URL")
    monkeypatch.setenv("OCTOLLM_API_SECRET", "hunter2")
    assert "hunter2" not in refusal()
    monkeypatch.setenv("OCTOLLM_API_SECRET", "hunter2" * 5)
    assert "hunter2" not in f"{load_settings()!r} {load_settings()}"


def test_settings_are_frozen():
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.redis.url = "redis://elsewhere"  # type: ignore[misc]  # that is the point
